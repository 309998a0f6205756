//! The tokenizer's training loop.

use super::config::TokenizerConfig;
use super::crop::CropConfig;
use super::data::{Crops, ImageSet, check_apart};
use super::learner::{InitialWeights, Learner, Losses};
use super::schedule::LrSchedule;
use super::validation::{Perceptual, ValidationOptions, reconstructions, validate};
use super::validation_set::ValidationSet;
use crate::TrainError;
use crate::files::local_file;
use crate::loss_scale::LossScale;
use crate::process_group::{Fact, OneProcess, ProcessGroup};
use crate::run::{Best, Keep, Metrics, RunFolder, State, open_folder, share_state};
use crate::schedule::tell_other_length;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use tokengrid_model::guard::guarded;
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{Precision, Runtime, Variant, pixels};
use tokengrid_store::is_remote;

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
    /// Mean PSNR over the validation set with the averaged weights, in dB, in steps that validated.
    pub val_psnr: Option<f64>,
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
    photos: Arc<ImageSet>,
    val: Option<ValidationSet>,
    learner: Learner,
    schedule: LrSchedule,
    state: State,
    /// Whether a checkpoint was due in a step that none could be made of.
    overdue: bool,
    runtime: Runtime,
    processes: Box<dyn ProcessGroup>,
}

/// Keys that may change when a run continues.
const FREE: [&str; 16] = [
    "loss.perceptual",
    "train.epochs",
    "train.max_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.save_best",
    "train.logger",
    "train.val_every",
    "train.init_from",
    "train.init_variant",
    "train.precision",
    "data.train",
    "data.val",
    "train.timeout_secs",
];

/// What must be the same in all processes of a run. Where the images lie may differ from machine to machine.
///
/// # Errors
/// Values that TOML cannot express.
pub fn facts(config: &TokenizerConfig) -> Result<Vec<Fact>, TrainError> {
    let mut same = config.clone();
    (same.data.train, same.data.val) = (String::new(), None);
    Ok(vec![Fact::toml("the configuration", crate::config::to_toml(&same)?)])
}

/// Pictures in a grid of reconstructions.
const NUM_SAMPLES: usize = 16;

impl TokenizerTrainer {
    /// Opens the data and the run's folder, and continues from its latest checkpoint where it has one.
    ///
    /// # Errors
    /// Missing data, another run's folder, weights that do not fit.
    pub fn open(config: TokenizerConfig, out: &Path, runtime: Runtime, overwrite: bool) -> Result<Self, TrainError> {
        Self::open_among(config, out, runtime, overwrite, Box::new(OneProcess))
    }

    /// As [`TokenizerTrainer::open`]; every process of the run opens a trainer of the same configuration.
    ///
    /// # Errors
    /// As there; another process is gone.
    pub fn open_among(
        config: TokenizerConfig,
        out: &Path,
        runtime: Runtime,
        overwrite: bool,
        processes: Box<dyn ProcessGroup>,
    ) -> Result<Self, TrainError> {
        if config.data.train.is_empty() {
            let what = "no training images: give --data SOURCE, or data.train in the configuration".into();
            return Err(TrainError::Config { place: "data.train".into(), what });
        }
        let photos = Arc::new(ImageSet::open(Path::new(&config.data.train), &config.data.exclude)?);
        let open_val = |path: &String| ValidationSet::open(Path::new(path), config.train.image_size, None);
        let val = config.data.val.as_ref().map(open_val).transpose()?;
        if let Some(name) = config.train.save_best.as_ref().filter(|_| val.is_none()) {
            let what = format!("{name} needs images to validate on: give --val SOURCE");
            return Err(TrainError::Config { place: "train.save_best".into(), what });
        }
        check_apart(out, photos.source())?;
        val.iter().try_for_each(|val| check_apart(out, val.source()))?;
        let (kind, scale) = compute(runtime);
        let perceptual = perceptual(&config, runtime.device, kind)?;
        let folder = open_folder(&config, out, &FREE, &*processes, overwrite)?;
        let (weights, state, checkpoint) = match processes.is_first() {
            true => start(&config, &folder)?,
            false => (InitialWeights::fresh(&config), State::default(), None),
        };
        // The others need not see the first one's disk.
        let state = share_state(&state, &*processes)?;
        let mut learner = Learner::new(&config, weights, perceptual, runtime, kind, scale)?;
        if let Some(path) = checkpoint {
            learner.load(&path, state.step).map_err(TrainError::damaged(&path))?;
        }
        learner.follow_first(&*processes)?;
        processes.note_steps(state.step);
        let world_size = processes.world_size();
        let schedule = LrSchedule::new(&config.train, config.train.steps(photos.len(), world_size));
        if let Some(before) = folder.before::<TokenizerConfig>().filter(|_| state.step > 0) {
            let before = before.train.steps(photos.len(), world_size);
            // A constant rate with drops at epochs does not depend on the length of the run.
            if before != schedule.steps && schedule.lr_end != 1.0 {
                tell_other_length(before, schedule.steps);
            }
        }
        let overdue = false;
        Ok(TokenizerTrainer { config, folder, photos, val, learner, schedule, state, overdue, runtime, processes })
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.steps
    }

    /// Steps done before this process started.
    pub fn resumed_at(&self) -> u64 {
        self.state.step
    }

    /// Photographs of the training set, and how many were left out of it.
    pub fn num_photos(&self) -> (usize, usize) {
        (self.photos.len(), self.photos.excluded())
    }

    /// Trains to the end, or until `cancel` is set in any process; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, another process is gone, or [`TrainError::Cancelled`].
    pub fn run(
        mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&TokenizerReport),
    ) -> Result<TokenizerSummary, TrainError> {
        let mut crops = Crops::start(self.photos.clone(), self.crops(), self.state.position);
        let is_first = self.processes.is_first();
        let mut metrics =
            is_first.then(|| self.folder.metrics(self.state.step, &self.config.train.logger)).transpose()?;
        let mut since = Since { time: Instant::now(), step: self.state.step };
        while self.state.step < self.schedule.steps {
            let (lr, epoch) = (self.lr(), self.epoch() as u64);
            let batch = crops.next_batch()?;
            let losses = self.step(&batch, lr)?;
            let due = self.due(epoch, self.processes.any(cancel.load(Ordering::Relaxed))?);
            let values = match due.log || due.checkpoint {
                true => losses.shared_values(&*self.processes)?,
                false => vec![],
            };
            let mut best = None;
            if due.log {
                let rate = since.rate(self.state.step, self.samples_per_step(), crops.take_waited());
                let val = if due.validate { self.validate(metrics.as_mut())? } else { vec![] };
                best = self.new_best(&val);
                observe(&self.report(values.clone(), lr, rate, val, metrics.as_mut())?);
                // Neither validations nor checkpoints count as time of training.
                since = Since { time: Instant::now(), step: self.state.step };
            }
            if due.checkpoint || best.is_some() {
                let pause = Instant::now();
                self.checkpoint(&values, &batch, best, metrics.as_mut())?;
                since.time += pause.elapsed();
            }
            if due.stop {
                self.processes.finish()?;
                return Err(TrainError::Cancelled);
            }
        }
        self.processes.finish()?;
        let weights = self.folder.path().join("checkpoints/latest/ema.safetensors");
        Ok(TokenizerSummary { step: self.state.step, photos: self.photos.len(), weights })
    }

    fn crops(&self) -> CropConfig {
        let train = &self.config.train;
        CropConfig {
            batch_size: train.batch_size,
            side: train.image_size,
            random: train.random_crop,
            scale: train.scale,
            flip: train.flip,
            seed: train.seed as u64,
            rank: self.processes.rank(),
            world_size: self.processes.world_size(),
            ..CropConfig::default()
        }
    }

    /// What is to be done after a step that began in `epoch`.
    fn due(&self, epoch: u64, cancelled: bool) -> Due {
        let (train, step) = (&self.config.train, self.state.step);
        let last = step == self.schedule.steps;
        let at_validation = match train.val_every {
            0 => self.epoch() as u64 > epoch,
            every => step.is_multiple_of(every),
        };
        let stop = cancelled && !last;
        let validate = self.val.is_some() && (at_validation || last) && !stop;
        Due {
            log: step.is_multiple_of(train.log_every) || last || stop || validate,
            validate,
            checkpoint: step.is_multiple_of(train.checkpoint_every) || last || stop || self.overdue,
            stop,
        }
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
        let images_bchw = pixels::to_input(crops, batch_size as i64, side, side, self.runtime);
        let losses = guarded(|| self.learner.batch_among(&images_bchw, lr, &*self.processes))??;
        self.state.step += 1;
        self.state.position += self.samples_per_step() as u64;
        self.processes.note_steps(self.state.step);
        Ok(losses)
    }

    /// Crops of a step, of all processes together.
    fn samples_per_step(&self) -> usize {
        self.config.train.batch_size * self.processes.world_size()
    }

    fn report(
        &mut self,
        mut values: Vec<(&'static str, f64)>,
        lr: f64,
        rate: Rate,
        val: Vec<(&'static str, f64)>,
        metrics: Option<&mut Metrics>,
    ) -> Result<TokenizerReport, TrainError> {
        let (step, steps) = (self.state.step, self.schedule.steps);
        let find = |values: &[(&str, f64)], name: &str| values.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        let get = |name: &str| find(&values, name).unwrap_or(f64::NAN);
        if let Err(diverged) = self.check_finite(&values) {
            metrics.map(|metrics| metrics.log(step, &values)).transpose()?;
            return Err(diverged);
        }
        let report = TokenizerReport {
            step,
            steps,
            reconstruct_loss: get("train/reconstruct_loss"),
            psnr: get("train/psnr"),
            codebook_entropy: get("train/codebook_entropy"),
            images_per_second: rate.images_per_second,
            val_psnr: find(&val, "val/psnr"),
        };
        let loss = get("train/nll_loss");
        if let Some(above) = self.state.spikes.observe(loss) {
            tracing::warn!("the loss leapt to {loss:.4} at step {step}, {above:.4} above its running mean");
            values.push(("train/loss_spike", above));
        }
        values.extend([
            ("epoch", self.epoch()),
            ("global_step", self.learner.global_step() as f64),
            ("lr", lr),
            ("images_per_second", rate.images_per_second),
            ("data_wait_fraction", rate.data_wait_fraction),
            ("bad_images", self.photos.num_bad() as f64),
        ]);
        let scale = self.learner.loss_scale();
        if scale.dynamic {
            let skipped = scale.skipped_steps as f64;
            values.extend([("train/loss_scale", scale.factor), ("train/skipped_steps", skipped)]);
        }
        values.extend(val);
        metrics.map(|metrics| metrics.log(step, &values)).transpose()?;
        Ok(report)
    }

    /// The averaged weights on the validation set: their numbers, and a picture of the first reconstructions.
    fn validate(&self, metrics: Option<&mut Metrics>) -> Result<Vec<(&'static str, f64)>, TrainError> {
        let Some(set) = &self.val else { return Ok(vec![]) };
        let lpips = self.learner.perceptual();
        let distance = lpips.map(|lpips| |a_bchw: &Tensor, b_bchw: &Tensor| lpips.forward(a_bchw, b_bchw));
        let options = ValidationOptions {
            batch_size: self.config.train.batch_size,
            runtime: self.runtime,
            perceptual: distance.as_ref().map(|distance| distance as Perceptual),
            num_samples: NUM_SAMPLES,
        };
        let validation = validate(&self.learner.ema_tokenizer(), set, &options, &*self.processes)?;
        if let (Some(picture), Some(metrics)) = (&validation.samples, metrics) {
            metrics.picture(self.state.step, "val/reconstructions", picture)?;
        }
        Ok(validation.metrics())
    }

    /// Publishes the state after the step that had `losses`, never one that is beyond repair, which would push out good ones.
    /// Without a validation set, with a picture of what the averaged weights make of `batch`.
    fn checkpoint(
        &mut self,
        values: &[(&'static str, f64)],
        batch: &[u8],
        best: Option<Best>,
        metrics: Option<&mut Metrics>,
    ) -> Result<(), TrainError> {
        self.check_finite(values)?;
        // In fp16 a loss that is not finite leaves the weights as they were, but may come from them: the next step tells.
        self.overdue = first_not_finite(values).is_some();
        if self.overdue && self.state.step < self.schedule.steps {
            return Ok(());
        }
        if self.overdue {
            return Err(self.divergence(values)?);
        }
        self.state.best = best.or(self.state.best.take());
        let Some(metrics) = metrics else { return Ok(()) };
        // Losses are of the weights before the step.
        if !self.learner.is_finite() {
            return Err(self.divergence(values)?);
        }
        if self.val.is_none() {
            let side = self.config.train.image_size;
            let image_bytes = (side * side * 3) as usize;
            let few = &batch[..batch.len().min(NUM_SAMPLES * image_bytes)];
            let picture = reconstructions(&self.learner.ema_tokenizer(), few, side, self.runtime);
            metrics.picture(self.state.step, "train/reconstructions", &picture)?;
        }
        let keep = Keep { last: self.config.train.keep_last, every: self.config.train.keep_every };
        self.folder.publish(&self.state, keep, |path| self.learner.save(path))?;
        Ok(())
    }

    /// The best so far, if the step that had these validation metrics is it. The same in all processes.
    fn new_best(&self, val: &[(&'static str, f64)]) -> Option<Best> {
        let criterion = self.config.train.criterion().ok()??;
        let (_, value) = val.iter().find(|(name, _)| *name == criterion.metric)?;
        criterion.surpassed(self.state.best.as_ref(), *value, self.state.step)
    }

    /// An error when a loss of either network is not finite, unless a smaller loss scale may still mend it.
    fn check_finite(&self, values: &[(&'static str, f64)]) -> Result<(), TrainError> {
        match first_not_finite(values) {
            Some(_) if self.learner.loss_scale().is_exhausted() => Err(self.divergence(values)?),
            _ => Ok(()),
        }
    }

    /// The error that ends a run whose last step had these losses.
    fn divergence(&self, values: &[(&'static str, f64)]) -> Result<TrainError, TrainError> {
        let what = match first_not_finite(values) {
            Some((name, value)) => format!("`{name}` ({value}) is"),
            None => "the updated weights, their averages or the optimizer's moments are".into(),
        };
        let last = self.folder.latest()?.map(|checkpoint| checkpoint.path);
        Ok(TrainError::Diverged { step: self.state.step, what, last })
    }
}

/// The first of some losses that is not finite.
fn first_not_finite<'a>(values: &[(&'a str, f64)]) -> Option<(&'a str, f64)> {
    values.iter().find(|(_, value)| !value.is_finite()).copied()
}

/// What to do after a step.
struct Due {
    log: bool,
    validate: bool,
    checkpoint: bool,
    /// Whether the run was cancelled before its end.
    stop: bool,
}

/// The beginning of an interval of training.
struct Since {
    time: Instant,
    step: u64,
}

/// Throughput over an interval.
struct Rate {
    images_per_second: f64,
    /// Share of the time spent waiting for crops.
    data_wait_fraction: f64,
}

impl Since {
    fn rate(&self, step: u64, batch_size: usize, waited: Duration) -> Rate {
        let seconds = self.time.elapsed().as_secs_f64().max(1e-9);
        let images = (step - self.step) as f64 * batch_size as f64;
        Rate { images_per_second: images / seconds, data_wait_fraction: waited.as_secs_f64() / seconds }
    }
}

/// What the networks compute in, and whether losses need scaling for it.
fn compute(runtime: Runtime) -> (Kind, LossScale) {
    match (runtime.precision, runtime.route.own_kernels) {
        (Precision::Fp16, true) => {
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
    // One file, or two with a comma between them. A local path stays as it is: it may have a comma in its name.
    let parts = file.split(',').map(|part| if is_remote(Path::new(part.trim())) { part.trim() } else { part });
    let files = parts.map(local_file).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<_> = files.iter().map(|file| file.path().as_os_str()).collect();
    let path = paths.join(OsStr::new(","));
    Ok(Some(Lpips::open(Backbone::Vgg16, Path::new(&path), device)?.with_kind(kind)))
}

/// Initial weights and state: of the latest checkpoint, of `init_from`, or fresh.
fn start(config: &TokenizerConfig, folder: &RunFolder) -> Result<(InitialWeights, State, Option<PathBuf>), TrainError> {
    if let Some(checkpoint) = folder.latest()? {
        let weights = InitialWeights::read(config, &checkpoint.path.join("model.safetensors"), Variant::Raw)?;
        return Ok((weights, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { seed: config.train.seed, ..State::default() };
    let weights = match &config.train.init_from {
        Some(path) => InitialWeights::read(config, local_file(path)?.path(), config.train.init_variant.parse()?)?,
        None => InitialWeights::fresh(config),
    };
    Ok((weights, state, None))
}
