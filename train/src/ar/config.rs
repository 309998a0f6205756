//! The configuration of the autoregressive model's training.

use super::accumulation::GradAccum;
use super::share::Sharing;
use crate::config::{AR, Config, Reference, section};
use crate::run::Loggers;
use serde::{Deserialize, Serialize};
use tokengrid_cache::Access;
use tokengrid_model::ar::{ModelConfig, PRESETS, preset};
use tokengrid_model::checkpoints::{EMA, MODEL};

section! {
    /// How to train.
    TrainSection {
        /// Sequences per micro-batch.
        batch_size: usize = 24,
        /// Micro-batches added up for one step; `auto`: as many as the global batch needs, which is that of the reference unless
        /// `global_batch` is given.
        grad_accum: GradAccum = GradAccum::Count(1),
        /// Samples per step, of all processes together; without it `batch_size * grad_accum` times the number of processes
        /// that the run was begun with.
        global_batch: Option<usize> = None,
        /// Type in which gradients are exchanged between processes: `fp32` or `bf16`.
        reduce_dtype: String = "fp32".into(),
        /// Add up gradients in an order that does not depend on the number of processes: the same bits for any number, at the
        /// cost of smaller micro-batches and more traffic.
        deterministic_reduce: bool = false,
        /// Each process keeps its part of the optimizer's moments, instead of all of them: less memory, the same numbers.
        shard_optimizer: bool = false,
        /// How long a process waits for the others, at the start and in each exchange, in seconds.
        timeout_secs: f64 = 600.0,
        /// Passes over the images; `max_steps` wins where both are given.
        epochs: f64 = 300.0,
        /// Optimizer steps.
        max_steps: Option<u64> = None,
        /// Highest learning rate.
        peak_lr: f64 = 3e-4,
        /// Decoupled weight decay.
        weight_decay: f64 = 0.05,
        /// Whether norm weights decay too, as in the reference.
        weight_decay_on_norms: bool = true,
        /// AdamW's decay rates.
        betas: [f64; 2] = [0.9, 0.95],
        /// Decay of the exponential moving average of the weights, per step; 0: no average is kept.
        ema_decay: f64 = 0.0,
        /// Limit of the global 2-norm of the gradient; `inf`: no clipping.
        grad_clip: f64 = 1.0,
        /// Epochs of linear warm-up.
        warmup_epochs: f64 = 6.0,
        /// Steps of linear warm-up; wins over `warmup_epochs`.
        warmup_steps: Option<u64> = None,
        /// Fraction of the peak learning rate at the first step.
        wp0: f64 = 0.005,
        /// Fraction of the peak learning rate at the last step.
        wpe: f64 = 0.1,
        /// `fp32`, `tf32`, `bf16` or `fp16`.
        precision: String = "fp32".into(),
        /// On the CPU in fp32: the fused step, which is faster than autograd; `false` takes autograd there too.
        fused: bool = true,
        /// Compute the activations of the spatial blocks again in the backward pass instead of keeping them: less memory,
        /// about a third more time.
        recompute: bool = false,
        /// On a GPU: capture micro-batches and the optimizer's update as CUDA graphs, and repeat them. No GPU has run it yet.
        cuda_graph: bool = false,
        /// Peak of a process's device in TFLOP/s, for the model FLOPs utilisation; without it that of known GPUs.
        peak_tflops: Option<f64> = None,
        /// Seed of initial weights, dropout and shuffling.
        seed: i64 = 42,
        /// What metrics are written to beside metrics.jsonl: `tensorboard`, or nothing, `jsonl`; a name or a list.
        logger: Loggers = Loggers::default(),
        /// Steps between lines of metrics.jsonl.
        log_every: u64 = 1,
        /// Steps between checkpoints.
        checkpoint_every: u64 = 1000,
        /// Newest checkpoints kept; 0 keeps all.
        keep_last: usize = 2,
        /// Checkpoints whose step is a multiple of this are kept as well; 0: none.
        keep_every: u64 = 0,
        /// The metric by which the best checkpoint is kept, as `checkpoints/best`: `val/loss`, `val/loss_ema` or `fid`.
        save_best: Option<String> = None,
        /// Steps between pictures sampled with the current weights, which needs a tokenizer; 0: none.
        sample_every: u64 = 0,
        /// Steps between computations of the FID of samples, which needs a tokenizer and Inception's weights; 0: none.
        fid_every: u64 = 0,
        /// Samples per FID, of all processes together, spread evenly over the classes.
        fid_samples: usize = 10_000,
        /// Statistics of the data set to compare with: an .npz file with `mu` and `sigma` of pool3 features.
        fid_reference: Option<String> = None,
        /// Classifier-free guidance scales of these samples, for low and high bits.
        fid_cfg_scale: [f64; 2] = [2.0, 2.0],
        /// Steps between validations on `data.val_cache`; 0: at the end only.
        val_every: u64 = 0,
        /// Weights to start from, under the reference's tensor names.
        init_from: Option<String> = None,
    }
}

section! {
    /// What to train on.
    DataSection {
        /// The token cache.
        cache: String = String::new(),
        /// The split of the cache to train on; without it all images.
        split: Option<String> = None,
        /// A second cache, for the validation loss.
        val_cache: Option<String> = None,
        /// The split to validate on, of the second cache where there is one.
        val_split: Option<String> = None,
        /// How caches are read: `map`, `map-random` (larger than memory), `preload` (all of it at once), `copy` (no map).
        access: String = "map".into(),
    }
}

/// FID of samples.
pub(super) const FID: &str = "fid";

/// Loss on the validation set.
pub(super) const VAL_LOSS: &str = "val/loss";

/// The same of the averaged weights.
pub(super) const VAL_LOSS_EMA: &str = "val/loss_ema";

/// The file of a checkpoint with the optimizer's moments.
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";

impl TrainSection {
    /// How the samples of a step are shared among `world_size` processes.
    pub(super) fn sharing(&self, global_batch: usize, world_size: usize) -> Sharing {
        let share = if self.deterministic_reduce { Sharing::fixed } else { Sharing::even };
        share(global_batch, self.batch_size, world_size)
    }
}

/// `data.access` as the cache's reader knows it.
pub(super) fn access(name: &str) -> Option<Access> {
    match name {
        "map" => Some(Access::Map),
        "map-random" => Some(Access::MapRandom),
        "preload" => Some(Access::Preload),
        "copy" => Some(Access::Copy),
        _ => None,
    }
}

/// `train ar --config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArConfig {
    /// The model.
    pub model: ModelConfig,
    /// The training.
    pub train: TrainSection,
    /// The data.
    pub data: DataSection,
}

impl Config for ArConfig {
    fn sections() -> &'static [(&'static str, &'static [&'static str])] {
        &[("model", ModelConfig::KEYS), ("train", TrainSection::KEYS), ("data", DataSection::KEYS)]
    }

    fn preset(name: &str) -> Option<&'static str> {
        preset(name)
    }

    fn preset_names() -> &'static str {
        PRESETS
    }

    fn reference() -> &'static Reference {
        &AR
    }

    fn resumes_from(&self) -> Vec<&'static str> {
        let averages = (self.train.ema_decay > 0.0).then_some(EMA);
        [MODEL, OPTIMIZER].into_iter().chain(averages).collect()
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        self.model.validate()?;
        self.train.validate()?;
        if access(&self.data.access).is_none() {
            return Err(("data.access", "expected `map`, `map-random`, `preload` or `copy`".into()));
        }
        Ok(())
    }
}
