//! Training of the autoregressive model from a cache.

mod accumulation;
mod best;
mod checks;
mod config;
mod data;
mod engine;
mod evaluate;
mod exchange;
mod facts;
mod from_cache;
mod fused;
mod hooks;
mod memory;
mod mfu;
mod publish;
mod recompute;
mod report;
mod saved;
mod share;
mod start;
mod trainer;

pub use accumulation::{GradAccum, REFERENCE_GLOBAL_BATCH};
pub use config::{ArConfig, DataSection, TrainSection};
pub use data::{HostBatch, Prefetch, Unpacker};
pub use engine::{Engine, StepName};
pub use evaluate::{Evaluation, evaluate, evaluate_among};
pub use facts::facts;
pub use from_cache::complete_from_cache;
pub use fused::{FusedStep, num_stages, stage_of};
pub use hooks::{FidFn, HookError, SampleFn};
pub use memory::{MemoryEstimate, estimate, estimate_among, largest_batch};
pub use mfu::flops_per_token;
pub use report::StepReport;
pub use share::{MicroBatch, Sharing};
pub use trainer::{Summary, Trainer};
