//! The autoregressive model's hyper-parameters and the configuration of its training.

use crate::config::{AR, Config, Reference, check_betas, section};
use crate::run::MODEL;
use serde::{Deserialize, Serialize};
use tokengrid_cache::Access;

section! {
    /// Hyper-parameters of the model; the defaults are the reference's B.
    ModelConfig {
        /// Width.
        dim: i64 = 1024,
        /// Attention heads; `dim / n_head` must be a multiple of 4.
        n_head: i64 = 16,
        /// Blocks over the positions of the grid.
        spatial_n_layer: i64 = 24,
        /// Blocks over the two sub-tokens of a position.
        factorized_n_layer: i64 = 2,
        /// Bits of the two sub-tokens, low bits first.
        factorized_bits: [u32; 2] = [6, 12],
        /// Tokens an image: a square number.
        block_size: i64 = 256,
        /// Classes; one more embedding stands for "no class".
        class_num: i64 = 1000,
        /// Dropout on the embedded sequence.
        token_drop: f64 = 0.1,
        /// Dropout after attention.
        resid_dropout: f64 = 0.1,
        /// Dropout after the feed-forward network.
        ffn_dropout: f64 = 0.1,
        /// Share of labels replaced by "no class", for classifier-free guidance.
        class_dropout: f64 = 0.1,
    }
}

section! {
    /// How to train.
    TrainSection {
        /// Sequences a process and step.
        batch_size: usize = 24,
        /// Micro-batches added up for one step.
        grad_accum: usize = 1,
        /// Samples of a step, of all processes together; without it `batch_size * grad_accum` times the number of processes
        /// that the run was begun with.
        global_batch: Option<usize> = None,
        /// What gradients are rounded to on their way between processes: `fp32` or `bf16`.
        reduce_dtype: String = "fp32".into(),
        /// Add up gradients in an order that does not depend on the number of processes: the same bits for any number, at the price
        /// of smaller micro-batches and more traffic.
        deterministic_reduce: bool = false,
        /// Seconds that a process waits for the others, at the start and in each exchange.
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
        /// Limit of the global gradient norm.
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
        /// On the CPU in fp32: the written-out step, which is faster than autograd; `false` takes autograd there too.
        fused: bool = true,
        /// Compute the activations of the spatial blocks again in the backward pass instead of keeping them: less memory,
        /// about a third more time.
        recompute: bool = false,
        /// Seed of initial weights, dropout and shuffling.
        seed: i64 = 42,
        /// Steps between lines of metrics.jsonl.
        log_every: u64 = 1,
        /// Steps between checkpoints.
        checkpoint_every: u64 = 1000,
        /// Newest checkpoints kept; 0 keeps all.
        keep_last: usize = 2,
        /// Checkpoints whose step is a multiple of it are kept beside these; 0: none.
        keep_every: u64 = 0,
        /// Steps between pictures sampled with the weights of the moment, which needs a tokenizer; 0: none.
        sample_every: u64 = 0,
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

/// The largest batch size and number of micro-batches: far more than any device holds, and few enough for every product of
/// sizes to be a number.
const COUNT_MAX: usize = 1 << 20;

/// The file of a checkpoint with the optimizer's moments.
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";

/// `data.access` as the cache's reader knows it.
pub fn access(name: &str) -> Option<Access> {
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
        Some(match name {
            "B" => include_str!("presets/B.toml"),
            "L" => include_str!("presets/L.toml"),
            "XL" => include_str!("presets/XL.toml"),
            "tiny" => include_str!("presets/tiny.toml"),
            _ => return None,
        })
    }

    fn preset_names() -> &'static str {
        "`B`, `L`, `XL` and `tiny`"
    }

    fn reference() -> &'static Reference {
        &AR
    }

    fn resumes_from(&self) -> Vec<&'static str> {
        vec![MODEL, OPTIMIZER]
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        self.model.validate()?;
        let train = &self.train;
        let at_least_one = [
            ("train.batch_size", train.batch_size as u64),
            ("train.grad_accum", train.grad_accum as u64),
            ("train.log_every", train.log_every),
            ("train.checkpoint_every", train.checkpoint_every),
            ("train.max_steps", train.max_steps.unwrap_or(1)),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "must be at least 1".into()));
        }
        let global_batch = train.global_batch.unwrap_or(1);
        if global_batch == 0 {
            return Err(("train.global_batch", "must be at least 1".into()));
        }
        if !matches!(&*train.reduce_dtype, "fp32" | "bf16") {
            return Err(("train.reduce_dtype", "expected `fp32` or `bf16`".into()));
        }
        if !(train.timeout_secs >= 1.0 && train.timeout_secs <= 1e6) {
            return Err(("train.timeout_secs", format!("{} is out of range: 1 to 1000000", train.timeout_secs)));
        }
        let counts = [
            ("train.batch_size", train.batch_size),
            ("train.grad_accum", train.grad_accum),
            ("train.global_batch", global_batch),
        ];
        if let Some((key, value)) = counts.into_iter().find(|(_, value)| *value > COUNT_MAX) {
            return Err((key, format!("{value} is more than {COUNT_MAX}")));
        }
        if train.epochs == 0.0 {
            return Err(("train.epochs", "0 is no number of epochs; expected more than 0".into()));
        }
        let lengths = [("train.epochs", train.epochs), ("train.warmup_epochs", train.warmup_epochs)];
        if let Some((key, value)) = lengths.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err((key, format!("{value} is no number of epochs")));
        }
        if !(train.peak_lr.is_finite() && train.peak_lr > 0.0) {
            return Err(("train.peak_lr", format!("{} is no learning rate; expected more than 0", train.peak_lr)));
        }
        if !(train.weight_decay.is_finite() && train.weight_decay >= 0.0) {
            return Err((
                "train.weight_decay",
                format!("{} is no weight decay; expected 0 or more", train.weight_decay),
            ));
        }
        // Nothing is learnt at 0.
        if train.grad_clip.is_nan() || train.grad_clip <= 0.0 {
            let what = format!("{} is no limit; expected more than 0, or `inf` for no clipping", train.grad_clip);
            return Err(("train.grad_clip", what));
        }
        let shares = [("train.wp0", train.wp0), ("train.wpe", train.wpe)];
        if let Some((key, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err((key, format!("{value} is no fraction of the peak learning rate; expected 0 to 1")));
        }
        check_betas(train.betas)?;
        if access(&self.data.access).is_none() {
            return Err(("data.access", "expected `map`, `map-random`, `preload` or `copy`".into()));
        }
        if train.precision.parse::<tokengrid_tokenize::Precision>().is_err() {
            return Err(("train.precision", "expected `fp32`, `tf32`, `bf16` or `fp16`".into()));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Side of the grid.
    pub fn side(&self) -> i64 {
        (self.block_size as f64).sqrt().round() as i64
    }

    /// Width of a head.
    pub fn head_dim(&self) -> i64 {
        self.dim / self.n_head
    }

    /// Inner width of the feed-forward network: 8/3 of the model's, rounded up to a multiple of 256.
    pub fn ffn_dim(&self) -> i64 {
        (8 * self.dim / 3 + 255) / 256 * 256
    }

    /// Vocabularies of the two sub-tokens.
    pub fn vocab(&self) -> [i64; 2] {
        self.factorized_bits.map(|bits| 1 << bits)
    }

    /// Bits a token.
    pub fn bits(&self) -> u32 {
        self.factorized_bits.iter().sum()
    }

    /// Checks that such a model can be built.
    ///
    /// # Errors
    /// The key and what would be right.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            ("model.dim", self.dim, 1 << 16),
            ("model.n_head", self.n_head, 1 << 14),
            ("model.spatial_n_layer", self.spatial_n_layer, 1 << 10),
            ("model.factorized_n_layer", self.factorized_n_layer, 1 << 10),
            ("model.block_size", self.block_size, 1 << 20),
            ("model.class_num", self.class_num, 1 << 24),
        ];
        if let Some((key, value, most)) = positive.into_iter().find(|(_, value, most)| *value < 1 || value > most) {
            return Err((key, format!("{value} is out of range: 1 to {most}")));
        }
        if self.dim % self.n_head != 0 || self.head_dim() % 4 != 0 {
            let what = format!("{} does not divide dim {} into heads of a multiple of 4", self.n_head, self.dim);
            return Err(("model.n_head", what));
        }
        if self.side() * self.side() != self.block_size {
            return Err(("model.block_size", format!("{} is no square number: grids are square", self.block_size)));
        }
        if self.factorized_bits.iter().any(|&bits| bits == 0 || bits > 16) {
            return Err(("model.factorized_bits", "each part takes 1 to 16 bits".into()));
        }
        let rates = [
            ("model.token_drop", self.token_drop),
            ("model.resid_dropout", self.resid_dropout),
            ("model.ffn_dropout", self.ffn_dropout),
            ("model.class_dropout", self.class_dropout),
        ];
        match rates.into_iter().find(|(_, rate)| !(0.0..1.0).contains(rate)) {
            Some((key, rate)) => Err((key, format!("{rate} is no rate in [0, 1)"))),
            None => Ok(()),
        }
    }
}
