//! A run before it starts: its length, arithmetic and memory, for a device and a number of processes that need not be present.

use super::config::{ArConfig, access};
use super::data::Unpacker;
use super::memory::{MemoryEstimate, estimate_among};
use super::mfu::flops_per_token;
use super::share::Sharing;
use super::start::{global_batch, schedule};
use crate::TrainError;
use crate::run::State;
use std::path::Path;
use tokengrid_model::Runtime;

/// Length, arithmetic and memory of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parameters of the model.
    pub parameters: i64,
    /// How a step's samples are shared among the processes.
    pub sharing: Sharing,
    /// Images of an epoch, steps of the run, and how many of these are warm-up; `None` without a cache.
    pub length: Option<Length>,
    /// Floating-point operations for each token, forward and backward.
    pub flops_per_token: f64,
    /// Bytes of each process at its peak.
    pub memory: MemoryEstimate,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Images per epoch.
    pub images: usize,
    /// Steps of the run.
    pub steps: u64,
    /// Steps in which the learning rate rises.
    pub warmup_steps: u64,
}

impl Plan {
    /// The plan of `config` in `world_size` processes on `runtime`, which is not touched.
    ///
    /// # Errors
    /// The configuration names a cache that cannot be read, or that does not fit the model.
    pub fn of(config: &ArConfig, runtime: &Runtime, world_size: usize) -> Result<Plan, TrainError> {
        let global_batch = global_batch(config, &State::default(), world_size);
        let length = match config.data.cache.as_str() {
            "" => None,
            cache => {
                let unpacker =
                    Unpacker::stream(Path::new(cache), &config.model, access(&config.data.access).unwrap_or_default())?;
                let images = unpacker.of_split(config.data.split.as_deref())?.images().len();
                let schedule = schedule(config, global_batch, images);
                Some(Length { images, steps: schedule.total, warmup_steps: schedule.warmup })
            }
        };
        Ok(Plan {
            parameters: config.model.num_params(),
            sharing: config.train.sharing(global_batch, world_size),
            length,
            flops_per_token: flops_per_token(&config.model),
            memory: estimate_among(config, runtime, world_size),
        })
    }
}
