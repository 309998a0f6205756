//! The training loop of the autoregressive model.
//!
//! Everything random is a function of (seed, step): dropout through libtorch's generator, which is seeded anew each
//! step, dropped labels through a counter-based generator, the order of samples through the loader's permutation. A
//! checkpoint therefore holds tensors, a step and a position, and a resumed run repeats the bits of an unbroken one.
//!
//! Several processes run this loop side by side, see [`Processes`]: they read different samples of each global batch and
//! make the same updates; the first of them alone writes.

use super::config::{ArConfig, FID, OPTIMIZER, VAL_LOSS, VAL_LOSS_EMA, access};
use super::data::{HostBatch, Prefetch, Unpacker};
use super::engine::{Engine, StepName};
use super::hooks::Hooks;
use super::mfu::{flops_per_token, peak_flops};
use super::share::{MicroBatch, Sharing};
use crate::TrainError;
use crate::optim::Shard;
use crate::processes::{OneProcess, Processes};
use crate::run::{Best, Keep, Metrics, RunFolder, State, open_folder, save_safetensors, share_state};
use crate::schedule::{WarmupLinear, tell_other_length};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use tokengrid_cache::{Loader, LoaderConfig};
use tokengrid_model::ar::{ArModel, ArWeights, Known, initial_params, metadata_of};
use tokengrid_model::checkpoints::{EMA, MODEL};
use tokengrid_model::rng::CounterRng;
use tokengrid_model::weights::Weights;
use tokengrid_model::{Params, Runtime};

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Passes over the images so far.
    pub epoch: f64,
    /// Sum of both losses, nats per token.
    pub loss: f64,
    /// Throughput of all processes together.
    pub tokens_per_second: f64,
    /// Model FLOPs utilisation, a share, where the device's peak is known.
    pub mfu: Option<f64>,
    /// Validation loss, in steps that validated.
    pub val_loss: Option<f64>,
    /// The same of the averaged weights, where they are kept.
    pub val_loss_ema: Option<f64>,
    /// FID of samples, in steps that computed it.
    pub fid: Option<f64>,
}

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Steps done.
    pub step: u64,
    /// Loss of the last logged step.
    pub loss: f64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
}

/// A run in progress.
pub struct Trainer {
    pub(super) config: ArConfig,
    runtime: Runtime,
    pub(super) processes: Box<dyn Processes>,
    folder: RunFolder,
    unpacker: Unpacker,
    pub(super) val: Option<Unpacker>,
    pub(super) engine: Engine,
    pub(super) schedule: WarmupLinear,
    pub(super) state: State,
    /// Whether a checkpoint was due in a step that none could be made of.
    overdue: bool,
    pub(super) hooks: Hooks,
}

/// Keys that may change when a run continues.
pub(super) const FREE: [&str; 22] = [
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
        processes: Box<dyn Processes>,
        overwrite: bool,
    ) -> Result<Trainer, TrainError> {
        if config.data.cache.is_empty() {
            let what = "no token cache: give --cache DIR, or data.cache in the configuration".into();
            return Err(TrainError::Config { place: "data.cache".into(), what });
        }
        let access = access(&config.data.access).unwrap_or_default();
        let open = |path: &String| Unpacker::open(Path::new(path), &config.model, access);
        let whole = open(&config.data.cache)?;
        let unpacker = whole.of_split(config.data.split.as_deref())?;
        let val_split = config.data.val_split.as_deref();
        let val = match &config.data.val_cache {
            Some(path) => {
                let other = open(path)?;
                other.check_tokenizer(&whole.cache().manifest().tokenizer.fingerprint)?;
                Some(other.of_split(val_split)?)
            }
            None => val_split.map(|split| whole.of_split(Some(split))).transpose()?,
        };
        let folder = open_folder(&config, out, &FREE, &*processes, overwrite)?;
        let fingerprint = unpacker.cache().manifest().tokenizer.fingerprint.clone();
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
        // A run may go on in another precision.
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
        let (overdue, hooks) = (false, Hooks::default());
        let trainer =
            Trainer { config, runtime, processes, folder, unpacker, val, engine, schedule, state, overdue, hooks };
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
    /// Divergence, a full disk, another process is gone, or [`TrainError::Cancelled`].
    pub fn run(mut self, cancel: &AtomicBool, observe: &mut dyn FnMut(&StepReport)) -> Result<Summary, TrainError> {
        let sharing = self.sharing();
        let blocks = sharing.of_rank(self.processes.rank());
        let unpacker = self.unpacker.clone();
        let mut batches = Prefetch::start(self.loader()?, unpacker, blocks.clone(), sharing.global_batch());
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
            // Throughput is that of training.
            since.0 += pause.elapsed();
        }
        // Nobody is done before everything is written.
        self.processes.finish()?;
        let checkpoint = self.folder.path().join("checkpoints/latest");
        Ok(Summary { step: self.state.step, loss, checkpoint })
    }

    fn loader(&self) -> Result<Loader, TrainError> {
        let (seed, batch_size) = (self.config.train.seed as u64, self.config.train.batch_size);
        // Which of the stream's samples are this process's is up to the blocks.
        let config = LoaderConfig { seed, batch_size, rank: 0, world_size: 1 };
        let mut loader = Loader::over(self.unpacker.cache().clone(), config, self.unpacker.images())?;
        loader.seek(self.state.position);
        Ok(loader)
    }

    /// Samples that all processes together take in one step.
    fn samples_a_step(&self) -> u64 {
        self.sharing().global_batch() as u64
    }

    /// One optimizer step. Both losses and the gradient's norm, as a tensor that nobody has waited for yet.
    fn step(&mut self, batches: &mut Prefetch, blocks: &[MicroBatch]) -> Result<Tensor, TrainError> {
        let (config, step, position) = (&self.config, self.state.step, self.state.position);
        let mut next_batch = |micro: u64| {
            let mut batch = batches.next_batch();
            let first = position + blocks[micro as usize].samples.start as u64;
            drop_labels(config, first, &mut batch);
            batch
        };
        let name = StepName { seed: config.train.seed, step };
        let losses = self.engine.step(&mut next_batch, name, self.schedule.lr(step), &*self.processes)?;
        self.state.step += 1;
        self.state.position += self.samples_a_step();
        self.processes.note_steps(self.state.step);
        Ok(losses)
    }

    /// What is to be done after a step, the same in all processes.
    fn due(&self, cancel: &AtomicBool) -> Result<Due, TrainError> {
        let (train, step) = (&self.config.train, self.state.step);
        let last = step == self.schedule.total;
        // A loss scale that is used up ends the run, in a step that is logged.
        let logged = step.is_multiple_of(train.log_every) || last || self.overflows();
        // Who of them was told to stop is known to all after the same step.
        let stop = self.processes.any(cancel.load(Ordering::Relaxed))?;
        Ok(Due {
            log: logged || stop || self.is_fid_due(last),
            checkpoint: step.is_multiple_of(train.checkpoint_every) || last || stop || self.overdue,
            sample: train.sample_every > 0 && (step.is_multiple_of(train.sample_every) || last),
            stop: stop && !last,
        })
    }

    /// Whether gradients overflow in fp16 however little the loss is scaled.
    fn overflows(&self) -> bool {
        self.engine.scale.dynamic && self.engine.scale.is_exhausted()
    }

    /// Reports the step that had `losses`, and validates; writes it where there are metrics to write to.
    fn log(&mut self, losses: &Tensor, pace: Pace, metrics: Option<&mut Metrics>) -> Result<StepReport, TrainError> {
        let (step, steps) = (self.state.step, self.schedule.total);
        let [pre, post, norm] = [0, 1, 2].map(|i| losses.double_value(&[i]));
        let loss = pre + post;
        if let Err(diverged) = self.check_finite(losses) {
            if let Some(metrics) = metrics {
                let row = [&[("train/loss", loss), ("train/grad_norm", norm)], &self.scale_values()[..]].concat();
                metrics.log(step, &row)?;
            }
            return Err(diverged);
        }
        let sequences = pace.steps as f64 * self.samples_a_step() as f64;
        let tokens_per_second = sequences * self.config.model.block_size as f64 / pace.seconds;
        let epoch = self.state.position as f64 / self.unpacker.images().len().max(1) as f64;
        let mfu = self.mfu(tokens_per_second);
        let mut report = StepReport {
            step,
            steps,
            epoch,
            loss,
            tokens_per_second,
            mfu,
            val_loss: None,
            val_loss_ema: None,
            fid: None,
        };
        (report.val_loss, report.val_loss_ema) = self.validate()?;
        report.fid = self.fid()?;
        let Some(metrics) = metrics else { return Ok(report) };
        let mut values = vec![
            ("epoch", epoch),
            ("lr", self.schedule.lr(step - 1)),
            ("wd", self.config.train.weight_decay),
            ("train/loss", loss),
            ("train/loss_pre", pre),
            ("train/loss_post", post),
            ("train/grad_norm", norm),
            ("tokens_per_second", tokens_per_second),
            ("data_wait_fraction", pace.waited.as_secs_f64() / pace.seconds),
        ];
        values.extend(mfu.map(|mfu| ("mfu", mfu)));
        values.extend(self.scale_values());
        values.extend(report.val_loss.map(|loss| (VAL_LOSS, loss)));
        values.extend(report.val_loss_ema.map(|loss| (VAL_LOSS_EMA, loss)));
        values.extend(report.fid.map(|fid| (FID, fid)));
        if let Some(above) = self.state.spikes.observe(loss) {
            tracing::warn!("the loss leapt to {loss:.4} at step {step}, {above:.4} above its running mean");
            values.push(("train/loss_spike", above));
        }
        metrics.log(step, &values)?;
        Ok(report)
    }

    /// Loss on the validation cache, in steps that are to be validated: of the weights, and of their averages.
    fn validate(&self) -> Result<(Option<f64>, Option<f64>), TrainError> {
        let (step, every) = (self.state.step, self.config.train.val_every);
        let due = step == self.schedule.total || (every > 0 && step.is_multiple_of(every));
        let Some(val) = self.val.as_ref().filter(|_| due) else { return Ok((None, None)) };
        let loss = |model: &ArModel| {
            let evaluation = evaluate_among(model, val, self.runtime.device, None, None, &*self.processes)?;
            Ok::<f64, TrainError>(evaluation.loss)
        };
        let averaged = self.engine.averaged_model(&*self.processes)?;
        Ok((Some(loss(&self.engine.model)?), averaged.as_ref().map(loss).transpose()?))
    }

    /// Model FLOPs utilisation at so many tokens per second of all processes.
    fn mfu(&self, tokens_per_second: f64) -> Option<f64> {
        let peak = peak_flops(&self.config.train, &self.runtime)? * self.processes.world_size() as f64;
        Some(tokens_per_second * flops_per_token(&self.config.model) / peak)
    }

    /// What fp16 adds to the metrics.
    fn scale_values(&self) -> Vec<(&'static str, f64)> {
        let scale = self.engine.scale;
        let values = [("train/loss_scale", scale.factor), ("train/skipped_steps", scale.skipped_steps as f64)];
        values.into_iter().filter(|_| scale.dynamic).collect()
    }

    /// Whether the last step's losses and gradient are numbers. In fp16 they need not be, as long as a smaller loss scale is
    /// left to try.
    fn check_finite(&self, losses: &Tensor) -> Result<(), TrainError> {
        let finite = losses.isfinite().all().int64_value(&[]) == 1;
        if finite || (self.engine.scale.dynamic && !self.overflows()) {
            return Ok(());
        }
        Err(self.divergence(losses)?)
    }

    /// The error that ends a run whose last step had `losses`.
    fn divergence(&self, losses: &Tensor) -> Result<TrainError, TrainError> {
        let step = self.state.step;
        let [pre, post, norm] = [0, 1, 2].map(|i| losses.double_value(&[i]));
        let loss = pre + post;
        let last = self.folder.latest()?.map(|checkpoint| checkpoint.path);
        Ok(match self.overflows() {
            true => TrainError::Overflow { step, factor: self.engine.scale.factor, loss, last },
            false => TrainError::Diverged { step, what: not_finite(loss, norm), last },
        })
    }

    /// Publishes the state after the step that had `losses`; never one that is beyond repair, which would push out good ones.
    /// `best`: this step is the best so far.
    fn checkpoint(&mut self, losses: &Tensor, best: Option<Best>) -> Result<(), TrainError> {
        self.check_finite(losses)?;
        // In fp16 an infinite gradient leaves the weights as they were; a loss that is not a number may come from the weights.
        self.overdue = losses.narrow(0, 0, 2).isfinite().all().int64_value(&[]) == 0;
        if self.overdue && self.state.step == self.schedule.total {
            return Err(self.divergence(losses)?);
        }
        if self.overdue {
            return Ok(());
        }
        // Losses are of the weights before the step.
        if self.processes.any(!self.engine.is_finite())? {
            return Err(self.divergence(losses)?);
        }
        let Engine { optimizer, ema, .. } = &self.engine;
        let moments = optimizer.moments(&*self.processes)?;
        let averages = ema.as_ref().map(|ema| ema.gather(optimizer, Device::Cpu, &*self.processes)).transpose()?;
        self.state.best = best.or(self.state.best.take());
        if !self.processes.is_first() {
            return Ok(());
        }
        let scale = self.engine.scale;
        self.state.loss_scale = scale.dynamic.then_some(scale);
        let train = &self.config.train;
        let keep = Keep { last: train.keep_last, every: train.keep_every };
        self.folder.publish(&self.state, keep, |path| {
            let metadata = metadata_of(&self.config.model, Some(&self.state.tokenizer));
            if let Some(averages) = &averages {
                save_safetensors(&path.join(EMA), averages.iter(), metadata.clone())?;
            }
            save_safetensors(&path.join(MODEL), optimizer.leaves(), metadata)?;
            optimizer.save_moments(&path.join(OPTIMIZER), &moments)
        })?;
        Ok(())
    }
}

/// Which part of a step is not finite, in the order in which one follows from the other.
fn not_finite(loss: f64, norm: f64) -> String {
    match (loss.is_finite(), norm.is_finite()) {
        (false, _) => format!("the loss ({loss}) is"),
        (true, false) => format!("the gradient (its norm is {norm}, the loss {loss:.4}) is"),
        (true, true) => "the updated weights, or the optimizer's moments, are".into(),
    }
}

/// What to do after a step.
struct Due {
    log: bool,
    checkpoint: bool,
    sample: bool,
    /// Whether the run was cancelled before its end.
    stop: bool,
}

/// What was done since the last logged step.
struct Pace {
    steps: u64,
    seconds: f64,
    /// Of these, waiting for tokens.
    waited: Duration,
}

/// Replaces a share of the classes by "no class". `first`: the place of the batch in the stream of samples, on which the
/// draw depends, so that it is the same for any number of processes.
fn drop_labels(config: &ArConfig, first: u64, batch: &mut HostBatch) {
    for (class, sample) in batch.class.iter_mut().zip(first..) {
        if CounterRng::new(&[config.train.seed as u64, 12, sample]).uniform() < config.model.class_dropout {
            *class = config.model.class_num;
        }
    }
}

/// Samples of a step, of all processes together: what was asked for, else as many as the run was begun with.
fn global_batch(config: &ArConfig, state: &State, world_size: usize) -> usize {
    let train = &config.train;
    let of_processes = |world_size: usize| train.grad_accum.global_batch(train.batch_size, world_size);
    // Before this number was recorded, runs were of one process.
    let begun = state.global_batch.or_else(|| (state.step > 0).then(|| of_processes(1)));
    train.global_batch.or(begun).unwrap_or_else(|| of_processes(world_size))
}

/// Parameters that those of the first process will replace.
fn blank_params(config: &ArConfig) -> Params {
    let tensors = config.model.tensors().into_iter();
    tensors.map(|(name, shape)| (name, Tensor::zeros(shape, (Kind::Float, Device::Cpu)))).collect()
}

fn schedule(config: &ArConfig, global_batch: usize, images: usize) -> WarmupLinear {
    let train = &config.train;
    let per_epoch = images as f64 / global_batch as f64;
    WarmupLinear {
        peak_lr: train.peak_lr,
        warmup: train.warmup_steps.unwrap_or((train.warmup_epochs * per_epoch).round() as u64),
        total: train.max_steps.unwrap_or((train.epochs * per_epoch).round() as u64).max(1),
        wp0: train.wp0,
        wpe: train.wpe,
    }
}

/// Initial parameters and state: of the latest checkpoint, of `init_from`, or fresh.
fn start(
    config: &ArConfig,
    folder: &RunFolder,
    tokenizer: String,
) -> Result<(Params, State, Option<PathBuf>), TrainError> {
    if let Some(checkpoint) = folder.latest()? {
        if checkpoint.state.tokenizer != tokenizer {
            let (was, now) = (checkpoint.state.tokenizer, tokenizer);
            return Err(TrainError::OtherRun {
                path: folder.path().into(),
                key: "the cache's tokenizer".into(),
                was,
                now,
            });
        }
        let file = checkpoint.path.join(MODEL);
        let params = Weights::open(&file)?.params_below("")?;
        params.check(&config.model.tensors(), &file, "the model of this run")?;
        return Ok((params, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { seed: config.train.seed, tokenizer, ..State::default() };
    let params = match &config.train.init_from {
        Some(path) => {
            let (n_head, side) = (Some(config.model.n_head), config.model.side() as u32);
            let weights = ArWeights::open(Path::new(path), Known { n_head, grid: Some((side, side)) })?;
            weights.params.check(&config.model.tensors(), &weights.path, "the model that [model] describes")?;
            // Tensors do not tell it, and another number would make another model of them.
            let (has, wants) = (weights.config.n_head, config.model.n_head);
            if has != wants {
                let what =
                    format!("the model in {} has {has} heads, `model.n_head` is {wants}", weights.path.display());
                return Err(TrainError::Config { place: "train.init_from".into(), what });
            }
            weights.params
        }
        None => initial_params(&config.model, config.train.seed),
    };
    Ok((params, state, None))
}

/// Teacher-forced losses over a whole cache.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    /// Sum of both parts, nats per token.
    pub loss: f64,
    /// Low bits.
    pub loss_pre: f64,
    /// High bits.
    pub loss_post: f64,
    /// Tokens looked at.
    pub tokens: u64,
}

/// Mean losses of `model` over every row of a cache or split (or the first `limit`), in the cache's order.
///
/// # Errors
/// [`TrainError::Cancelled`] when `cancel` is set, which is looked at between batches.
pub fn evaluate(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
) -> Result<Evaluation, TrainError> {
    evaluate_among(model, cache, device, limit, cancel, &OneProcess)
}

/// As [`evaluate`], in which every process looks at its share of the rows; all of them know the result.
///
/// # Errors
/// As there; another process is gone.
pub fn evaluate_among(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
    processes: &dyn Processes,
) -> Result<Evaluation, TrainError> {
    const BATCH: usize = 16;
    let _no_grad = tch::no_grad_guard();
    let rows: Vec<usize> = cache.rows().take(limit.unwrap_or(usize::MAX)).collect();
    let (mut pre_sum, mut post_sum) = (0.0, 0.0);
    for chunk in rows.chunks(BATCH).skip(processes.rank()).step_by(processes.world_size()) {
        if cancel.is_some_and(|cancel| cancel.load(Ordering::SeqCst)) {
            return Err(TrainError::Cancelled);
        }
        let [pre, post, class] = cache.unpack(chunk).to_device(device);
        let losses = model.losses(&pre, &post, &class, false);
        pre_sum += losses.pre.double_value(&[]) * chunk.len() as f64;
        post_sum += losses.post.double_value(&[]) * chunk.len() as f64;
    }
    let sums = Tensor::from_slice(&[pre_sum, post_sum]);
    processes.sum(&sums)?;
    let count = rows.len().max(1) as f64;
    let [loss_pre, loss_post] = [0, 1].map(|part| sums.double_value(&[part]) / count);
    let tokens = rows.len() as u64 * model.config.block_size as u64;
    Ok(Evaluation { loss: loss_pre + loss_post, loss_pre, loss_post, tokens })
}
