//! The configuration of a tokenizer's training.

use super::adversarial::DiscLoss;
use super::checkpoint::{DISCRIMINATOR_OPTIMIZER, LEARNER, OPTIMIZER};
use super::discriminator::PatchGan;
use crate::config::{Config, Reference, TOKENIZER, check_betas, section};
use crate::run::{Criterion, Loggers};
use serde::{Deserialize, Serialize};
use tokengrid_model::checkpoints::MODEL;
use tokengrid_model::perceptual::Backbone;
use tokengrid_model::{Architecture, Precision, Variant};

section! {
    /// Hyper-parameters; the defaults are the reference's `imagenet_256_L`.
    ModelSection {
        /// Base channels.
        ch: i64 = 128,
        /// Channel multipliers, finest level first.
        ch_mult: Vec<i64> = vec![1, 1, 2, 2, 4],
        /// Residual blocks per level.
        num_res_blocks: i64 = 4,
        /// Bits per token.
        z_channels: i64 = 18,
    }
}

section! {
    /// The loss terms and the discriminator.
    LossSection {
        /// Share of the squared error in the reconstruction loss; the rest is absolute error.
        mse_share: f64 = 0.0,
        /// Weight of the perceptual loss (LPIPS on VGG16).
        perceptual_weight: f64 = 1.0,
        /// File with the weights of the perceptual loss; without it the term is left out.
        perceptual: Option<String> = None,
        /// Weight of the generator's adversarial term; at 0 there is no discriminator.
        gen_loss_weight: f64 = 0.1,
        /// Batches before the adversarial losses take effect.
        disc_start: u64 = 0,
        /// Channels of the discriminator's first layer.
        disc_ndf: i64 = 64,
        /// Convolutions with stride 2 in the discriminator.
        disc_num_layers: i64 = 3,
        /// What the discriminator minimises: `hinge`, `vanilla` or `non_saturate`.
        disc_loss: String = "hinge".into(),
        /// Weight of the LeCAM regulariser in the discriminator's loss.
        lecam_loss_weight: f64 = 0.05,
        /// Weight of the entropy loss.
        codebook_weight: f64 = 0.1,
        /// The entropy loss starts out `1 + codebook_enlarge_ratio` times as heavy ...
        codebook_enlarge_ratio: f64 = 0.0,
        /// ... and reaches its own weight after this many batches.
        codebook_enlarge_steps: u64 = 2000,
        /// Weight of the commitment loss.
        commit_weight: f64 = 0.25,
    }
}

section! {
    /// How to train.
    TokenizerTrainSection {
        /// Crops per process and step.
        batch_size: usize = 8,
        /// Passes over the images.
        epochs: f64 = 270.0,
        /// Batches of the run; wins over `epochs`.
        max_steps: Option<u64> = None,
        /// Learning rate.
        lr: f64 = 1e-4,
        /// Steps of linear warm-up.
        warmup_steps: u64 = 0,
        /// Learning rate at the last step, as a fraction of `lr`; the decay is a half cosine.
        lr_end: f64 = 1.0,
        /// Epochs at whose end the learning rate drops ...
        lr_drop_epochs: Vec<u64> = vec![200, 250],
        /// ... to this fraction.
        lr_drop_rate: f64 = 0.1,
        /// Adam's decay rates.
        betas: [f64; 2] = [0.5, 0.9],
        /// Decay of the exponential moving average of the weights, per step.
        ema_decay: f64 = 0.999,
        /// Number format of the networks: `fp32`, `tf32`, `bf16` or `fp16`. Weights and losses are always 32-bit floats.
        precision: String = "fp32".into(),
        /// Side of the training crops, in pixels.
        image_size: u32 = 256,
        /// Crops come from the image resized so that its shorter side is `image_size` times a number in this range.
        scale: [f64; 2] = [1.0, 1.0],
        /// Whether crops lie at random places; else in the centre.
        random_crop: bool = true,
        /// Whether crops are mirrored at random.
        flip: bool = false,
        /// Seed of initial weights and crops.
        seed: i64 = 42,
        /// What metrics are written to beside metrics.jsonl: `tensorboard`, or nothing, `jsonl`; a name or a list.
        logger: Loggers = Loggers::default(),
        /// Steps between lines of metrics.jsonl.
        log_every: u64 = 10,
        /// Steps between checkpoints.
        checkpoint_every: u64 = 1000,
        /// Newest checkpoints kept; 0 keeps all.
        keep_last: usize = 2,
        /// Checkpoints whose step is a multiple of this are kept as well; 0: none.
        keep_every: u64 = 0,
        /// The metric by which the best checkpoint is kept, as `checkpoints/best`: `val/psnr`, `val/reconstruct_loss`,
        /// `val/perceptual_loss` or `val/codebook_utilization`.
        save_best: Option<String> = None,
        /// Steps between validations on `data.val`; 0: one at the end of every epoch.
        val_every: u64 = 0,
        /// How long a process waits for the others, at the start and in each exchange, in seconds.
        timeout_secs: f64 = 600.0,
        /// Weights to start from.
        init_from: Option<String> = None,
        /// Which of the weights there: `raw` or `ema`.
        init_variant: String = "raw".into(),
    }
}

section! {
    /// What to train on.
    TokenizerDataSection {
        /// The images to train on: a path to any source.
        train: String = String::new(),
        /// Images that are left out of `train`, by key or file name.
        exclude: Vec<String> = vec![],
        /// Images to validate on: a path to any source.
        val: Option<String> = None,
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

    fn preset(name: &str) -> Option<&'static str> {
        Some(match name {
            "imagenet_256_L" => include_str!("presets/imagenet_256_L.toml"),
            "imagenet_128_L" => include_str!("presets/imagenet_128_L.toml"),
            "tiny" => include_str!("presets/tiny.toml"),
            _ => return None,
        })
    }

    fn preset_names() -> &'static str {
        "`imagenet_256_L`, `imagenet_128_L` and `tiny`"
    }

    fn reference() -> &'static Reference {
        &TOKENIZER
    }

    fn resumes_from(&self) -> Vec<&'static str> {
        let adversary = self.loss.patch_gan().map(|_| DISCRIMINATOR_OPTIMIZER);
        [MODEL, OPTIMIZER, LEARNER].into_iter().chain(adversary).collect()
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        self.model.validate()?;
        let factor = self.model.architecture().factor();
        if self.train.image_size == 0 || !self.train.image_size.is_multiple_of(factor) {
            let what = format!("{} is not a multiple of the downsampling factor {factor}", self.train.image_size);
            return Err(("train.image_size", what));
        }
        self.loss.validate(i64::from(self.train.image_size))?;
        self.train.validate()
    }
}

impl ModelSection {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.ch < 32 || self.ch % 32 != 0 {
            return Err((
                "model.ch",
                format!("{} is not a multiple of 32, the number of groups of every norm", self.ch),
            ));
        }
        if self.ch_mult.is_empty() || self.ch_mult.len() > 8 || self.ch_mult.iter().any(|&m| !(1..=16).contains(&m)) {
            return Err(("model.ch_mult", "expected 1 to 8 multipliers from 1 to 16".into()));
        }
        if !(1..=24).contains(&self.z_channels) || !(1..=16).contains(&self.num_res_blocks) {
            return Err(("model.z_channels", "expected 1 to 24 bits, and 1 to 16 num_res_blocks".into()));
        }
        Ok(())
    }
}

impl LossSection {
    /// The discriminator, where the adversarial term has a weight.
    pub fn patch_gan(&self) -> Option<PatchGan> {
        (self.gen_loss_weight > 0.0).then_some(PatchGan { ndf: self.disc_ndf, num_layers: self.disc_num_layers })
    }

    /// File with the weights of the perceptual loss, where that has a weight.
    pub fn perceptual_file(&self) -> Option<&str> {
        self.perceptual.as_deref().filter(|path| self.perceptual_weight > 0.0 && !path.is_empty())
    }

    fn validate(&self, side: i64) -> Result<(), (&'static str, String)> {
        let weights = [
            ("loss.mse_share", self.mse_share),
            ("loss.perceptual_weight", self.perceptual_weight),
            ("loss.gen_loss_weight", self.gen_loss_weight),
            ("loss.lecam_loss_weight", self.lecam_loss_weight),
            ("loss.codebook_weight", self.codebook_weight),
            ("loss.codebook_enlarge_ratio", self.codebook_enlarge_ratio),
            ("loss.commit_weight", self.commit_weight),
        ];
        if let Some((key, value)) = weights.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err((key, format!("{value} is not a weight; expected 0 or more")));
        }
        if self.mse_share > 1.0 {
            return Err(("loss.mse_share", format!("{} is not within 0 to 1", self.mse_share)));
        }
        self.disc_loss.parse::<DiscLoss>().map_err(|what| ("loss.disc_loss", what))?;
        if self.disc_ndf < 1 || self.disc_ndf > 1024 || !(1..=8).contains(&self.disc_num_layers) {
            return Err(("loss.disc_ndf", "expected 1 to 1024 channels, and 1 to 8 disc_num_layers".into()));
        }
        if self.patch_gan().is_some_and(|net| net.logits_side(side) < 1) {
            let what = format!("crops of {side} pixels are too small for {} layers", self.disc_num_layers);
            return Err(("loss.disc_num_layers", format!("{what}; lower it, or set loss.gen_loss_weight to 0")));
        }
        let least = Backbone::Vgg16.min_side();
        if self.perceptual_file().is_some() && side < least {
            return Err(("loss.perceptual", format!("needs crops of at least {least} pixels, not {side}")));
        }
        Ok(())
    }
}

/// What `train.save_best` may name.
const CRITERIA: [Criterion; 4] = [
    Criterion { metric: "val/psnr", largest: true },
    Criterion { metric: "val/reconstruct_loss", largest: false },
    Criterion { metric: "val/perceptual_loss", largest: false },
    Criterion { metric: "val/codebook_utilization", largest: true },
];

/// The largest batch and crop, far beyond what any device holds.
const BATCH_MAX: usize = 1 << 16;
const SIDE_MAX: u32 = 1 << 13;

impl TokenizerTrainSection {
    /// What `save_best` names.
    ///
    /// # Errors
    /// The name is not a metric that checkpoints are compared by.
    pub(super) fn criterion(&self) -> Result<Option<Criterion>, String> {
        self.save_best.as_ref().map(|name| Criterion::of(name, &CRITERIA)).transpose()
    }

    /// A lower bound of the memory of a step, in bytes: two activations of the finest level, in half precision, kept for
    /// the backward pass of every residual block there, in encoder and decoder.
    pub fn activation_bytes_min(&self, model: &ModelSection) -> u64 {
        let pixels = self.batch_size as u64 * u64::from(self.image_size).pow(2);
        let channels = (model.ch * model.ch_mult.first().copied().unwrap_or(1)) as u64;
        2 * pixels * channels * 2 * 2 * model.num_res_blocks as u64
    }

    /// Batches of the run on `images` images, in `world_size` processes.
    pub fn steps(&self, images: usize, world_size: usize) -> u64 {
        let from_epochs = (self.epochs * images as f64 / (self.batch_size * world_size) as f64).ceil() as u64;
        self.max_steps.unwrap_or(from_epochs).max(1)
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        let at_least_one = [
            ("train.batch_size", self.batch_size as u64),
            ("train.log_every", self.log_every),
            ("train.checkpoint_every", self.checkpoint_every),
            ("train.max_steps", self.max_steps.unwrap_or(1)),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "must be at least 1".into()));
        }
        if self.batch_size > BATCH_MAX || self.image_size > SIDE_MAX {
            let what = format!("expected at most {BATCH_MAX}, and crops of at most {SIDE_MAX} pixels");
            return Err(("train.batch_size", what));
        }
        if !(self.timeout_secs >= 1.0 && self.timeout_secs <= 1e6) {
            return Err(("train.timeout_secs", format!("{} is out of range: 1 to 1000000", self.timeout_secs)));
        }
        self.logger.validate()?;
        self.criterion().map_err(|what| ("train.save_best", what))?;
        let [low, high] = self.scale;
        if !(low >= 1.0 && high >= low && high <= 16.0) {
            return Err(("train.scale", format!("[{low}, {high}] is no range within 1 to 16")));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(("train.lr", format!("{} is not a learning rate; expected more than 0", self.lr)));
        }
        if !(self.epochs.is_finite() && self.epochs > 0.0) {
            return Err(("train.epochs", format!("{} is not a number of epochs; expected more than 0", self.epochs)));
        }
        let shares = [
            ("train.ema_decay", self.ema_decay),
            ("train.lr_end", self.lr_end),
            ("train.lr_drop_rate", self.lr_drop_rate),
        ];
        if let Some((key, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err((key, format!("{value} is not within 0 to 1")));
        }
        check_betas(self.betas)?;
        self.precision.parse::<Precision>().map_err(|e| ("train.precision", e.to_string()))?;
        self.init_variant.parse::<Variant>().map_err(|e| ("train.init_variant", e.to_string()))?;
        Ok(())
    }
}
