//! The tokenizer's training loop.

use super::config::TokenizerConfig;
use super::crop::CropConfig;
use super::data::{Crops, ImageSet, check_apart};
use super::learner::{InitialWeights, Learner, Losses};
use super::report::{Since, TokenizerReport};
use super::schedule::LrSchedule;
use super::start::{FREE, compute, perceptual, start};
use super::validation_set::ValidationSet;
use crate::TrainError;
use crate::process_group::{OneProcess, ProcessGroup};
use crate::run::{RunFolder, State, open_folder, share_state};
use crate::schedule::tell_other_length;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokengrid_model::guard::guarded;
use tokengrid_model::{Runtime, pixels};

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct TokenizerSummary {
    /// Steps done.
    pub step: u64,
    /// Images trained on.
    pub images: usize,
    /// The averaged weights: a tokenizer for `--tokenizer`.
    pub weights: PathBuf,
}

/// A run in progress.
pub struct TokenizerTrainer {
    pub(super) config: TokenizerConfig,
    pub(super) folder: RunFolder,
    pub(super) images: Arc<ImageSet>,
    pub(super) val: Option<ValidationSet>,
    pub(super) learner: Learner,
    pub(super) schedule: LrSchedule,
    pub(super) state: State,
    /// Whether a checkpoint was due at a step whose state was not finite, and is to be made at the next one that is.
    pub(super) overdue: bool,
    /// The step of the last checkpoint, if there is one.
    pub(super) saved_step: Option<u64>,
    pub(super) runtime: Runtime,
    pub(super) processes: Box<dyn ProcessGroup>,
}

impl TokenizerTrainer {
    /// Opens the data and the run's folder, and continues from its latest checkpoint where it has one.
    ///
    /// # Errors
    /// Data are missing; the folder holds another run or is in use; weights are missing, damaged or do not fit the model.
    pub fn open(config: TokenizerConfig, out: &Path, runtime: Runtime, overwrite: bool) -> Result<Self, TrainError> {
        Self::open_among(config, out, runtime, overwrite, Box::new(OneProcess))
    }

    /// As [`TokenizerTrainer::open`]; every process of the run opens a trainer of the same configuration.
    ///
    /// # Errors
    /// As [`TokenizerTrainer::open`]; another process is gone.
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
        let images = Arc::new(ImageSet::open(Path::new(&config.data.train), &config.data.exclude)?);
        let open_val = |path: &String| ValidationSet::open(Path::new(path), config.train.image_size, None);
        let val = config.data.val.as_ref().map(open_val).transpose()?;
        if let Some(name) = config.train.save_best.as_ref().filter(|_| val.is_none()) {
            let what = format!("{name} needs images to validate on: give --val SOURCE");
            return Err(TrainError::Config { place: "train.save_best".into(), what });
        }
        check_apart(out, images.source())?;
        val.iter().try_for_each(|val| check_apart(out, val.source()))?;
        let (kind, scale) = compute(runtime);
        let perceptual = perceptual(&config, runtime.device, kind)?;
        let folder = open_folder(&config, out, &FREE, &*processes, overwrite)?;
        let (weights, state, checkpoint) = match processes.is_first() {
            true => start(&config, &folder)?,
            false => (InitialWeights::fresh(&config), State::default(), None),
        };
        // The other processes may not see the disk of the first one.
        let state = share_state(&state, &*processes)?;
        let mut learner = Learner::new(&config, weights, perceptual, runtime, kind, scale)?;
        if let Some(path) = checkpoint {
            learner.load(&path, state.step).map_err(TrainError::damaged(&path))?;
        }
        learner.follow_first(&*processes)?;
        processes.note_steps(state.step);
        let world_size = processes.world_size();
        let schedule = LrSchedule::new(&config.train, config.train.steps(images.len(), world_size));
        if let Some(before) = folder.before::<TokenizerConfig>().filter(|_| state.step > 0) {
            let before = before.train.steps(images.len(), world_size);
            // A constant rate with drops at epochs does not depend on the length of the run.
            if before != schedule.steps && schedule.lr_end != 1.0 {
                tell_other_length(before, schedule.steps);
            }
        }
        let (overdue, saved_step) = (false, Some(state.step).filter(|step| *step > 0));
        Ok(TokenizerTrainer {
            config,
            folder,
            images,
            val,
            learner,
            schedule,
            state,
            overdue,
            saved_step,
            runtime,
            processes,
        })
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.steps
    }

    /// Steps done before this process started.
    pub fn resumed_at(&self) -> u64 {
        self.state.step
    }

    /// Images of the training set, and how many were left out of it.
    pub fn num_images(&self) -> (usize, usize) {
        (self.images.len(), self.images.excluded())
    }

    /// Trains to the end, or until `cancel` is set in any process; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, another process is gone, [`TrainError::Interrupted`], or [`TrainError::Cancelled`].
    pub fn run(
        mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&TokenizerReport),
    ) -> Result<TokenizerSummary, TrainError> {
        self.steps_until(cancel, observe).map_err(|error| error.interrupted(self.state.step, self.saved_step))
    }

    fn steps_until(
        &mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&TokenizerReport),
    ) -> Result<TokenizerSummary, TrainError> {
        let mut crops = Crops::start(self.images.clone(), self.crops(), self.state.position);
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
        Ok(TokenizerSummary { step: self.state.step, images: self.images.len(), weights })
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

    /// Passes over the images so far.
    pub(super) fn epoch(&self) -> f64 {
        self.state.position as f64 / self.images.len().max(1) as f64
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

    /// Crops per step, of all processes together.
    fn samples_per_step(&self) -> usize {
        self.config.train.batch_size * self.processes.world_size()
    }
}

/// What to do after a step.
struct Due {
    log: bool,
    validate: bool,
    checkpoint: bool,
    /// Whether the run was cancelled before its end.
    stop: bool,
}
