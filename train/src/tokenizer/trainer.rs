//! The tokenizer's training loop.

use super::config::TokenizerConfig;
use super::data::{Crops, PhotoSet};
use super::learner::{InitialWeights, Learner, Losses};
use super::loss_scale::LossScale;
use super::schedule::LrSchedule;
use crate::TrainError;
use crate::perceptual::{Backbone, Lpips};
use crate::run::{Metrics, RunFolder, State};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Kind};
use tokengrid_tokenize::{Precision, Runtime, Variant, pixels};

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerReport {
    /// Steps (batches) done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean absolute error of the reconstruction, in [0, 2].
    pub reconstruct_loss: f64,
    /// Peak signal-to-noise ratio of the batch, in dB.
    pub psnr: f64,
    /// Entropy of the codebook's use over the batch, in nats.
    pub codebook_entropy: f64,
    /// Crops a second.
    pub images_per_second: f64,
}

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct TokenizerSummary {
    /// Steps done.
    pub step: u64,
    /// Photographs trained on.
    pub photos: usize,
    /// The averaged weights: a tokenizer for `--tokenizer`.
    pub weights: PathBuf,
}

/// A run in progress.
pub struct TokenizerTrainer {
    config: TokenizerConfig,
    folder: RunFolder,
    photos: Arc<PhotoSet>,
    learner: Learner,
    schedule: LrSchedule,
    state: State,
    device: Device,
}

/// Keys that may change when a run continues.
const FREE: [&str; 9] = [
    "loss.perceptual",
    "train.epochs",
    "train.max_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.init_from",
    "train.init_variant",
    "train.precision",
    "data.train",
];

impl TokenizerTrainer {
    /// Opens the data and the run's folder, and continues from its latest checkpoint where it has one.
    ///
    /// # Errors
    /// Missing data, another run's folder, weights that do not fit.
    pub fn open(config: TokenizerConfig, out: &Path, runtime: Runtime, overwrite: bool) -> Result<Self, TrainError> {
        if config.data.train.is_empty() {
            let what = "no training images: give --data SOURCE, or data.train in the configuration".into();
            return Err(TrainError::Config { place: "data.train".into(), what });
        }
        let photos = Arc::new(PhotoSet::open(Path::new(&config.data.train))?);
        let (kind, scale) = compute(runtime);
        let perceptual = perceptual(&config, runtime.device, kind)?;
        let folder = RunFolder::open(out, &config, &FREE, overwrite)?;
        let (weights, state, checkpoint) = start(&config, &folder)?;
        let mut learner = Learner::new(&config, weights, perceptual, runtime.device, kind, scale)?;
        if let Some(path) = checkpoint {
            learner.load(&path, state.step)?;
        }
        let schedule = LrSchedule::new(&config.train, config.train.steps(photos.len()));
        Ok(TokenizerTrainer { config, folder, photos, learner, schedule, state, device: runtime.device })
    }

    /// Trains to the end, or until `cancel` is set; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, or [`TrainError::Cancelled`].
    pub fn run(
        mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&TokenizerReport),
    ) -> Result<TokenizerSummary, TrainError> {
        let train = self.config.train.clone();
        let mut crops = Crops::start(self.photos.clone(), &train, self.state.position);
        let mut metrics = self.folder.metrics(self.state.step)?;
        let mut since = (Instant::now(), self.state.step);
        while self.state.step < self.schedule.steps {
            let lr = self.lr();
            let losses = self.step(&crops.next_batch(), lr)?;
            let last = self.state.step == self.schedule.steps;
            let stop = cancel.load(Ordering::Relaxed);
            if self.state.step.is_multiple_of(train.log_every) || last || stop {
                let steps = (self.state.step - since.1) as f64;
                let rate = steps * train.batch_size as f64 / since.0.elapsed().as_secs_f64();
                since = (Instant::now(), self.state.step);
                observe(&self.report(&losses, lr, rate, &mut metrics)?);
            }
            if stop || last || self.state.step.is_multiple_of(train.checkpoint_every) {
                self.folder.publish(&self.state, 2, |path| self.learner.save(path))?;
            }
            if stop && !last {
                return Err(TrainError::Cancelled);
            }
        }
        let weights = self.folder.path().join("checkpoints/latest/ema.safetensors");
        Ok(TokenizerSummary { step: self.state.step, photos: self.photos.len(), weights })
    }

    /// Passes over the photographs so far.
    fn epoch(&self) -> f64 {
        self.state.position as f64 / self.photos.len().max(1) as f64
    }

    /// Learning rate of the next step.
    fn lr(&self) -> f64 {
        self.schedule.lr(self.state.step, self.epoch() as u64)
    }

    /// One batch of crops.
    fn step(&mut self, crops: &[u8], lr: f64) -> Result<Losses, TrainError> {
        let (batch_size, side) = (self.config.train.batch_size, i64::from(self.config.train.image_size));
        let images_bchw = pixels::to_input(crops, batch_size as i64, side, side, self.device);
        let losses = self.learner.batch(&images_bchw, lr)?;
        self.state.step += 1;
        self.state.position += batch_size as u64;
        Ok(losses)
    }

    fn report(
        &self,
        losses: &Losses,
        lr: f64,
        rate: f64,
        metrics: &mut Metrics,
    ) -> Result<TokenizerReport, TrainError> {
        let (step, steps) = (self.state.step, self.schedule.steps);
        let mut values = losses.values();
        let get = |name: &str| values.iter().find(|(key, _)| *key == name).map_or(f64::NAN, |(_, value)| *value);
        self.refuse_divergence(get("train/total_loss"))?;
        let report = TokenizerReport {
            step,
            steps,
            reconstruct_loss: get("train/reconstruct_loss"),
            psnr: get("train/psnr"),
            codebook_entropy: get("train/codebook_entropy"),
            images_per_second: rate,
        };
        values.extend([
            ("epoch", self.epoch()),
            ("global_step", self.learner.global_step() as f64),
            ("lr", lr),
            ("images_per_second", rate),
        ]);
        let scale = self.learner.loss_scale();
        if scale.dynamic {
            let skipped = scale.skipped_steps as f64;
            values.extend([("train/loss_scale", scale.factor), ("train/skipped_steps", skipped)]);
        }
        metrics.log(step, &values)?;
        Ok(report)
    }

    /// An error when the loss is no number, unless a smaller loss scale may still mend it.
    fn refuse_divergence(&self, loss: f64) -> Result<(), TrainError> {
        if loss.is_finite() || !self.learner.loss_scale().is_exhausted() {
            return Ok(());
        }
        let last = self.folder.latest()?.map_or("none yet".into(), |c| c.path.display().to_string());
        Err(TrainError::Diverged { step: self.state.step, loss, last })
    }
}

/// What the networks compute in, and whether losses need scaling for it.
fn compute(runtime: Runtime) -> (Kind, LossScale) {
    match (runtime.precision, runtime.device) {
        (Precision::Fp16, Device::Cpu) => {
            tracing::warn!("training on the CPU in fp32: fp16 is for GPUs only");
            (Kind::Float, LossScale::OFF)
        }
        (Precision::Fp16, _) => (Kind::Half, LossScale::DYNAMIC),
        (precision, _) => (precision.kind(), LossScale::OFF),
    }
}

/// The perceptual net that the configuration asks for.
fn perceptual(config: &TokenizerConfig, device: Device, kind: Kind) -> Result<Option<Lpips>, TrainError> {
    let loss = &config.loss;
    let Some(file) = loss.perceptual_file() else {
        if loss.perceptual_weight > 0.0 {
            tracing::warn!(
                "training without the perceptual loss: `loss.perceptual` names no weights (`{}` and `{}`, or the \
                 reference's checkpoint); its weight is taken as 0",
                Backbone::Vgg16.published_convolutions(),
                Backbone::Vgg16.published_taps()
            );
        }
        return Ok(None);
    };
    Ok(Some(Lpips::open(Backbone::Vgg16, Path::new(file), device)?.with_kind(kind)))
}

/// Initial weights and state: of the latest checkpoint, of `init_from`, or fresh.
fn start(config: &TokenizerConfig, folder: &RunFolder) -> Result<(InitialWeights, State, Option<PathBuf>), TrainError> {
    if let Some(checkpoint) = folder.latest()? {
        let weights = InitialWeights::read(config, &checkpoint.path.join("model.safetensors"), Variant::Raw)?;
        return Ok((weights, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { step: 0, position: 0, seed: config.train.seed, tokenizer: String::new() };
    let weights = match &config.train.init_from {
        Some(path) => InitialWeights::read(config, Path::new(path), config.train.init_variant.parse()?)?,
        None => InitialWeights::fresh(config),
    };
    Ok((weights, state, None))
}
