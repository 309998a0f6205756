//! The configuration of a tokenizer's training.

use crate::config::{Config, Reference, TOKENIZER, section};
use serde::{Deserialize, Serialize};
use tokengrid_tokenize::Architecture;

section! {
    /// Hyper-parameters; the defaults are the reference's `imagenet_256_L`.
    ModelSection {
        /// Base channels.
        ch: i64 = 128,
        /// Channel multipliers, finest level first.
        ch_mult: Vec<i64> = vec![1, 1, 2, 2, 4],
        /// Residual blocks a level.
        num_res_blocks: i64 = 4,
        /// Bits a token.
        z_channels: i64 = 18,
    }
}

section! {
    /// Weights of the loss terms.
    LossSection {
        /// Share of the squared error in the reconstruction loss; the rest is absolute error.
        mse_share: f64 = 0.0,
        /// Weight of the entropy loss.
        codebook_weight: f64 = 0.1,
        /// The entropy loss starts out `1 + codebook_enlarge_ratio` times as heavy ...
        codebook_enlarge_ratio: f64 = 0.0,
        /// ... and reaches its own weight after this many steps.
        codebook_enlarge_steps: u64 = 2000,
        /// Weight of the commitment loss.
        commit_weight: f64 = 0.25,
    }
}

section! {
    /// How to train.
    TokenizerTrainSection {
        /// Crops a step.
        batch_size: usize = 8,
        /// Optimizer steps.
        max_steps: u64 = 100_000,
        /// Learning rate.
        lr: f64 = 1e-4,
        /// Steps of linear warm-up.
        warmup_steps: u64 = 0,
        /// Learning rate at the last step, as a fraction of `lr`; the decay is a half cosine.
        lr_end: f64 = 1.0,
        /// Adam's decay rates.
        betas: [f64; 2] = [0.5, 0.9],
        /// Decay of the averaged weights.
        ema_decay: f64 = 0.999,
        /// Side of the training crops, in pixels.
        image_size: u32 = 256,
        /// Crops come from the photograph resized so that its shorter side is `image_size` times a number in this range.
        scale: [f64; 2] = [1.0, 1.0],
        /// Whether crops are mirrored at random.
        flip: bool = false,
        /// Seed of initial weights and crops.
        seed: i64 = 42,
        /// Steps between lines of metrics.jsonl.
        log_every: u64 = 10,
        /// Steps between checkpoints.
        checkpoint_every: u64 = 1000,
        /// Weights to start from.
        init_from: Option<String> = None,
    }
}

section! {
    /// What to train on.
    TokenizerDataSection {
        /// Photographs.
        train: String = String::new(),
    }
}

/// `train tokenizer --config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenizerConfig {
    /// The architecture.
    pub model: ModelSection,
    /// The loss.
    pub loss: LossSection,
    /// The training.
    pub train: TokenizerTrainSection,
    /// The data.
    pub data: TokenizerDataSection,
}

impl ModelSection {
    /// The architecture that the section describes.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            ch: self.ch,
            ch_mult: self.ch_mult.clone(),
            num_res_blocks: self.num_res_blocks,
            z_channels: self.z_channels,
        }
    }
}

impl Config for TokenizerConfig {
    fn sections() -> &'static [(&'static str, &'static [&'static str])] {
        &[
            ("model", ModelSection::KEYS),
            ("loss", LossSection::KEYS),
            ("train", TokenizerTrainSection::KEYS),
            ("data", TokenizerDataSection::KEYS),
        ]
    }

    fn planned() -> &'static [&'static str] {
        &[
            "disc_start",
            "disc_ndf",
            "disc_num_layers",
            "disc_loss",
            "gen_loss_weight",
            "lecam_loss_weight",
            "perceptual",
            "perceptual_weight",
        ]
    }

    fn preset(name: &str) -> Option<&'static str> {
        (name == "tiny").then_some(include_str!("presets/tiny.toml"))
    }

    fn preset_names() -> &'static str {
        "`tiny`"
    }

    fn reference() -> &'static Reference {
        &TOKENIZER
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        let model = &self.model;
        if model.ch < 32 || model.ch % 32 != 0 {
            return Err(("model.ch", format!("{} is no multiple of 32, the number of groups of every norm", model.ch)));
        }
        if model.ch_mult.is_empty() || model.ch_mult.len() > 8 || model.ch_mult.iter().any(|&m| !(1..=16).contains(&m))
        {
            return Err(("model.ch_mult", "expected 1 to 8 multipliers from 1 to 16".into()));
        }
        if !(1..=24).contains(&model.z_channels) || !(1..=16).contains(&model.num_res_blocks) {
            return Err(("model.z_channels", "expected 1 to 24 bits, and 1 to 16 num_res_blocks".into()));
        }
        let factor = model.architecture().factor();
        if self.train.image_size == 0 || !self.train.image_size.is_multiple_of(factor) {
            let what = format!("{} is no multiple of the downsampling factor {factor}", self.train.image_size);
            return Err(("train.image_size", what));
        }
        if self.train.batch_size == 0 || self.train.log_every == 0 || self.train.checkpoint_every == 0 {
            return Err(("train.batch_size", "this, log_every and checkpoint_every must be at least 1".into()));
        }
        let [low, high] = self.train.scale;
        if !(low >= 1.0 && high >= low && high <= 16.0) {
            return Err(("train.scale", format!("[{low}, {high}] is no range within 1 to 16")));
        }
        Ok(())
    }
}
