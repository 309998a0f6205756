//! The autoregressive model: class and earlier tokens in, the next token's two parts out.

mod block;
mod config;
mod data;
mod description;
mod engine;
mod exchange;
mod facts;
mod from_cache;
mod fused;
mod intra;
mod memory;
mod metadata;
mod model;
mod recompute;
mod rope;
mod share;
mod trainer;
mod weights;

pub use block::{Block, Dropout, rms_norm};
pub use config::{ArConfig, DataSection, ModelConfig, TrainSection};
pub use data::{HostBatch, Prefetch, Unpacker};
pub use description::{Description, Known};
pub use engine::{Engine, StepName};
pub use facts::facts;
pub use from_cache::complete_from_cache;
pub use fused::{FusedStep, HostDecoder};
pub use intra::IntraBlock;
pub use memory::{MemoryEstimate, estimate, largest_batch};
pub use model::{ArModel, Losses};
pub use rope::{Rope, rotate};
pub use share::{MicroBatch, Sharing};
pub use trainer::{Evaluation, SampleFn, StepReport, Summary, Trainer, evaluate};
pub use weights::{ArWeights, initial_params};
