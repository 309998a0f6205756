//! Training of the autoregressive model from a cache.

mod config;
mod data;
mod engine;
mod from_cache;
mod fused;
mod memory;
mod recompute;
mod trainer;

pub use config::{ArConfig, DataSection, TrainSection};
pub use data::{HostBatch, Prefetch, Unpacker};
pub use engine::{Engine, StepName};
pub use from_cache::complete_from_cache;
pub use fused::FusedStep;
pub use memory::{MemoryEstimate, estimate, largest_batch};
pub use trainer::{Evaluation, SampleFn, StepReport, Summary, Trainer, evaluate};
