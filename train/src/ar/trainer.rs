//! The training loop of the autoregressive model.
//!
//! Everything random is a function of (seed, step): dropout through libtorch's generator, which is seeded again each
//! step, dropped labels through a counter-based generator, the order of samples through the loader's permutation. A
//! checkpoint therefore holds tensors, a step and a position, and a resumed run repeats the bits of an unbroken one.
//!
//! Several processes run this loop side by side, see [`ProcessGroup`]: they read different samples of each global batch and
//! make the same updates; the first of them alone writes.

use super::config::{ArConfig, access};
use super::data::{HostBatch, Unpacker};
use super::engine::{Engine, StepName};
use super::hooks::Hooks;
use super::mfu::peak_flops;
use super::prefetch::Prefetch;
use super::report::{Pace, StepReport};
use super::share::{MicroBatch, Sharing};
use super::start::{blank_params, global_batch, schedule, start};
use crate::TrainError;
use crate::optim::Shard;
use crate::process_group::ProcessGroup;
use crate::run::{RunFolder, State, open_folder, share_state};
use crate::schedule::{WarmupLinear, tell_other_length};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::Tensor;
use tokengrid_cache::SampleOrder;
use tokengrid_model::Runtime;
use tokengrid_model::rng::CounterRng;

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Steps done.
    pub step: u64,
    /// Loss of the last logged step, in nats per token.
    pub loss: f64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}

/// A run in progress.
pub struct Trainer {
    pub(super) config: ArConfig,
    pub(super) runtime: Runtime,
    pub(super) processes: Box<dyn ProcessGroup>,
    pub(super) folder: RunFolder,
    pub(super) unpacker: Unpacker,
    pub(super) val: Option<Unpacker>,
    pub(super) engine: Engine,
    pub(super) schedule: WarmupLinear,
    pub(super) state: State,
    /// Whether a checkpoint was due at a step whose state was not finite, and is to be made at the next one that is.
    pub(super) overdue: bool,
    /// The step of the last checkpoint, if there is one.
    pub(super) saved_step: Option<u64>,
    /// Peak of a process's device in FLOP/s, where it is known.
    pub(super) peak_flops: Option<f64>,
    pub(super) hooks: Hooks,
}

/// Keys that may change when a run continues.
pub(super) const FREE: [&str; 23] = [
    "train.max_steps",
    "train.epochs",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.save_best",
    "train.logger",
    "train.peak_tflops",
    "train.sample_every",
    "train.fid_every",
    "train.fid_samples",
    "train.fid_reference",
    "train.fid_cfg_scale",
    "train.val_every",
    "train.init_from",
    "data.cache",
    "data.val_cache",
    "data.access",
    "train.precision",
    "train.cuda_graph",
    "train.timeout_secs",
    "train.shard_optimizer",
];

impl Trainer {
    /// Opens cache and run folder, and continues from the latest checkpoint where there is one. Every process of the run
    /// opens a trainer of the same configuration.
    ///
    /// # Errors
    /// A cache that does not fit the model, another run's folder, weights that do not fit; another process is gone.
    pub fn open(
        config: ArConfig,
        out: &Path,
        runtime: Runtime,
        processes: Box<dyn ProcessGroup>,
        overwrite: bool,
    ) -> Result<Trainer, TrainError> {
        if config.data.cache.is_empty() {
            let what = "no token cache: give --cache DIR, or data.cache in the configuration".into();
            return Err(TrainError::Config { place: "data.cache".into(), what });
        }
        let (unpacker, val) = open_caches(&config)?;
        let folder = open_folder(&config, out, &FREE, &*processes, overwrite)?;
        let fingerprint = unpacker.manifest().tokenizer.fingerprint.clone();
        let (params, state, checkpoint) = match processes.is_first() {
            true => start(&config, &folder, fingerprint)?,
            false => (blank_params(&config), State::default(), None),
        };
        // The others need not see the first one's disk.
        let mut state: State = share_state(&state, &*processes)?;
        let (rank, world_size) = (processes.rank(), processes.world_size());
        let shard = if config.train.shard_optimizer { Shard { rank, world_size } } else { Shard::WHOLE };
        let mut engine = Engine::sharded(&config, &params, &runtime, shard)?;
        let read = |path: PathBuf| engine.read(&path).map_err(TrainError::damaged(&path));
        let saved = checkpoint.map(read).transpose()?;
        engine.follow_first(saved, &*processes)?;
        let global_batch = global_batch(&config, &state, processes.world_size());
        engine.set_global_batch(global_batch);
        state.global_batch = Some(global_batch);
        processes.note_steps(state.step);
        // A run may be continued in another precision.
        if let Some(scale) = state.loss_scale.filter(|_| engine.scale.dynamic) {
            engine.scale = scale;
        }
        let schedule = schedule(&config, global_batch, unpacker.images().len());
        let before = folder.before::<ArConfig>().filter(|_| state.step > 0);
        if let Some(before) = before {
            let before = self::schedule(&before, global_batch, unpacker.images().len());
            if before != schedule {
                tell_other_length(before.total, schedule.total);
            }
        }
        let (overdue, hooks, peak_flops) = (false, Hooks::default(), peak_flops(&config.train, &runtime));
        let saved_step = Some(state.step).filter(|step| *step > 0);
        let trainer = Trainer {
            config,
            runtime,
            processes,
            folder,
            unpacker,
            val,
            engine,
            schedule,
            state,
            overdue,
            saved_step,
            peak_flops,
            hooks,
        };
        trainer.check_criterion()?;
        Ok(trainer)
    }

    /// Fingerprint of the tokenizer that the cache was made with.
    pub fn tokenizer_fingerprint(&self) -> &str {
        &self.state.tokenizer
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.total
    }

    /// Steps done before this process started.
    pub fn resumed_at(&self) -> u64 {
        self.state.step
    }

    /// How the samples of a step are shared among the processes.
    pub fn sharing(&self) -> Sharing {
        self.engine.sharing(self.processes.world_size())
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        self.engine.optimizer.num_params()
    }

    /// Trains to the end, or until `cancel` is set in any process; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, another process is gone, [`TrainError::Interrupted`], or [`TrainError::Cancelled`].
    pub fn run(mut self, cancel: &AtomicBool, observe: &mut dyn FnMut(&StepReport)) -> Result<Summary, TrainError> {
        self.steps_until(cancel, observe).map_err(|error| error.interrupted(self.state.step, self.saved_step))
    }

    fn steps_until(
        &mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&StepReport),
    ) -> Result<Summary, TrainError> {
        let sharing = self.sharing();
        let blocks = sharing.of_rank(self.processes.rank());
        let order = self.unpacker.order(self.config.train.seed as u64)?;
        self.stage_behind(order.clone())?;
        let (unpacker, position) = (self.unpacker.clone(), self.state.position);
        let mut batches = Prefetch::start(order, position, unpacker, blocks.clone(), sharing.global_batch());
        let is_first = self.processes.is_first();
        let mut metrics =
            is_first.then(|| self.folder.metrics(self.state.step, &self.config.train.logger)).transpose()?;
        let mut loss = f64::NAN;
        let mut since = (Instant::now(), self.state.step);
        while self.state.step < self.schedule.total {
            let losses = self.step(&mut batches, &blocks)?;
            let due = self.due(cancel)?;
            let mut best = None;
            if due.log {
                let seconds = since.0.elapsed().as_secs_f64();
                let pace = Pace { steps: self.state.step - since.1, seconds, waited: batches.take_waited() };
                let report = self.log(&losses, pace, metrics.as_mut())?;
                since = (Instant::now(), self.state.step);
                loss = report.loss;
                best = self.new_best(&report);
                observe(&report);
            }
            let pause = Instant::now();
            if due.checkpoint || best.is_some() {
                self.checkpoint(&losses, best)?;
            }
            if due.stop {
                self.processes.finish()?;
                return Err(TrainError::Cancelled);
            }
            if due.sample {
                self.sample(metrics.as_mut())?;
            }
            // Checkpoints and pictures do not count in the throughput.
            since.0 += pause.elapsed();
        }
        // No process ends before everything is written.
        self.processes.finish()?;
        let checkpoint = self.folder.path().join("checkpoints/latest");
        Ok(Summary { step: self.state.step, loss, checkpoint })
    }

    /// Has what is not staged of the caches staged while training has begun, in the order of the epoch.
    fn stage_behind(&self, mut order: SampleOrder) -> Result<(), TrainError> {
        let (first, images) = (self.state.position, self.unpacker.images().len() as u64);
        let rows = (first..first + images).flat_map(move |sample| {
            let mut row = vec![];
            order.rows_at(sample, 1, &mut row);
            row
        });
        self.unpacker.stage_behind(rows)?;
        self.val.as_ref().map_or(Ok(()), |val| val.stage_behind(val.rows()))
    }

    /// Samples that all processes together take in one step.
    pub(super) fn samples_per_step(&self) -> u64 {
        self.sharing().global_batch() as u64
    }

    /// One optimizer step; returns f32 `[3]` as [`Engine::step`].
    fn step(&mut self, batches: &mut Prefetch, blocks: &[MicroBatch]) -> Result<Tensor, TrainError> {
        let (config, step, position) = (&self.config, self.state.step, self.state.position);
        let mut next_batch = |micro: u64| {
            let mut batch = batches.next_batch()?;
            let first = position + blocks[micro as usize].samples.start as u64;
            drop_labels(config, first, &mut batch);
            Ok(batch)
        };
        let name = StepName { seed: config.train.seed, step };
        let losses = self.engine.step(&mut next_batch, name, self.schedule.lr(step), &*self.processes)?;
        self.state.step += 1;
        self.state.position += self.samples_per_step();
        self.processes.note_steps(self.state.step);
        Ok(losses)
    }

    /// What is to be done after a step, the same in all processes.
    fn due(&self, cancel: &AtomicBool) -> Result<Due, TrainError> {
        let (train, step) = (&self.config.train, self.state.step);
        let last = step == self.schedule.total;
        // A loss scale that cannot shrink further ends the run, and that step is logged.
        let logged = step.is_multiple_of(train.log_every) || last || self.overflows();
        // All processes learn after the same step that one of them was asked to stop.
        let stop = self.processes.any(cancel.load(Ordering::Relaxed))?;
        Ok(Due {
            log: logged || stop || self.is_fid_due(last),
            checkpoint: step.is_multiple_of(train.checkpoint_every) || last || stop || self.overdue,
            sample: train.sample_every > 0 && (step.is_multiple_of(train.sample_every) || last),
            stop: stop && !last,
        })
    }
}

/// The images to train on, and those to validate on, if any.
fn open_caches(config: &ArConfig) -> Result<(Unpacker, Option<Unpacker>), TrainError> {
    let access = access(&config.data.access).unwrap_or_default();
    let open = |path: &String| Unpacker::stream(Path::new(path), &config.model, access);
    let cache = open(&config.data.cache)?;
    let train = cache.of_split(config.data.split.as_deref())?;
    let val_split = config.data.val_split.as_deref();
    let val = match &config.data.val_cache {
        Some(path) => {
            let other = open(path)?;
            other.check_tokenizer(&cache.manifest().tokenizer.fingerprint)?;
            Some(other.of_split(val_split)?)
        }
        None => val_split.map(|split| cache.of_split(Some(split))).transpose()?,
    };
    Ok((train, val))
}

/// What to do after a step.
struct Due {
    log: bool,
    checkpoint: bool,
    sample: bool,
    /// Whether the run was cancelled before its end.
    stop: bool,
}

/// Replaces a share of the classes by "no class". `first`: index of the batch's first sample in the stream; the draw is
/// a function of the sample's index, so it is the same for any number of processes.
fn drop_labels(config: &ArConfig, first: u64, batch: &mut HostBatch) {
    for (class, sample) in batch.class.iter_mut().zip(first..) {
        if CounterRng::new(&[config.train.seed as u64, 12, sample]).uniform() < config.model.class_dropout {
            *class = config.model.class_num;
        }
    }
}
