//! The training loop of the autoregressive model.
//!
//! Everything random is a function of (seed, step): dropout through libtorch's generator, which is seeded anew each
//! step, dropped labels through a counter-based generator, the order of samples through the loader's permutation. A
//! checkpoint therefore holds tensors, a step and a position, and a resumed run repeats the bits of an unbroken one.

use super::config::{ArConfig, access};
use super::data::{HostBatch, Prefetch, Unpacker};
use super::model::ArModel;
use super::weights::{ArWeights, initial_params};
use crate::TrainError;
use crate::optim::{AdamW, AdamWConfig, Gradients};
use crate::rng::CounterRng;
use crate::run::{Keep, Metrics, RunFolder, SpikeWatch, State};
use crate::schedule::WarmupLinear;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use tokengrid_cache::{Loader, LoaderConfig};
use tokengrid_tokenize::weights::{Weights, save_safetensors};
use tokengrid_tokenize::{Params, Picture, Precision, Runtime};

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Passes over the images so far.
    pub epoch: f64,
    /// Sum of both losses, nats a token.
    pub loss: f64,
    /// Throughput of this process.
    pub tokens_per_second: f64,
    /// Validation loss, in steps that validated.
    pub val_loss: Option<f64>,
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

/// Makes a picture of samples with the weights of the moment. It must leave libtorch's settings as they are; random numbers
/// it may draw, since every step seeds its own.
pub type SampleFn = Box<dyn FnMut(&ArModel) -> Result<Picture, Box<dyn std::error::Error + Send + Sync>>>;

/// A run in progress.
pub struct Trainer {
    config: ArConfig,
    runtime: Runtime,
    folder: RunFolder,
    unpacker: Unpacker,
    val: Option<Unpacker>,
    model: ArModel,
    optimizer: AdamW,
    schedule: WarmupLinear,
    state: State,
    spikes: SpikeWatch,
    sample: Option<SampleFn>,
}

/// Keys that may change when a run continues.
const FREE: [&str; 13] = [
    "train.max_steps",
    "train.epochs",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.sample_every",
    "train.val_every",
    "train.init_from",
    "data.cache",
    "data.val_cache",
    "data.access",
    "train.precision",
];

impl Trainer {
    /// Opens cache and run folder, and continues from the latest checkpoint where there is one.
    ///
    /// # Errors
    /// A cache that does not fit the model, another run's folder, weights that do not fit.
    pub fn open(config: ArConfig, out: &Path, runtime: Runtime, overwrite: bool) -> Result<Trainer, TrainError> {
        if config.data.cache.is_empty() {
            let what = "no token cache: give --cache DIR, or data.cache in the configuration".into();
            return Err(TrainError::Config { place: "data.cache".into(), what });
        }
        let access = access(&config.data.access).unwrap_or_default();
        let open = |path: &String| Unpacker::open(Path::new(path), &config.model, access);
        let (unpacker, val) = (open(&config.data.cache)?, config.data.val_cache.as_ref().map(open).transpose()?);
        let folder = RunFolder::open(out, &config, &FREE, overwrite)?;
        let fingerprint = unpacker.cache().manifest().tokenizer.fingerprint.clone();
        let (params, state, checkpoint) = start(&config, &folder, fingerprint)?;
        let train = &config.train;
        let adamw = AdamWConfig {
            betas: train.betas,
            eps: 1e-8,
            weight_decay: train.weight_decay,
            weight_decay_on_norms: train.weight_decay_on_norms,
        };
        let (mut optimizer, leaves) = AdamW::new(&params, adamw, runtime.device);
        if let Some(path) = checkpoint {
            optimizer.load(&path.join("optimizer.safetensors"))?;
        }
        let model = ArModel::new(&config.model, &leaves, runtime.device, compute_kind(&runtime)?);
        let schedule = schedule(&config, unpacker.cache().num_images());
        let (spikes, sample) = (SpikeWatch::default(), None);
        Ok(Trainer { config, runtime, folder, unpacker, val, model, optimizer, schedule, state, spikes, sample })
    }

    /// Has `sample` called every `train.sample_every` steps and at the end; what it makes is added to the run's pictures.
    pub fn sample_with(&mut self, sample: SampleFn) {
        self.sample = Some(sample);
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

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        self.optimizer.num_params()
    }

    /// Trains to the end, or until `cancel` is set; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, or [`TrainError::Cancelled`].
    pub fn run(mut self, cancel: &AtomicBool, observe: &mut dyn FnMut(&StepReport)) -> Result<Summary, TrainError> {
        let mut batches = Prefetch::start(self.loader()?, self.unpacker.clone());
        let mut metrics = self.folder.metrics(self.state.step)?;
        let mut loss = f64::NAN;
        let mut since = (Instant::now(), self.state.step);
        while self.state.step < self.schedule.total {
            let losses = self.step(&mut batches)?;
            let (step, train) = (self.state.step, self.config.train.clone());
            let last = step == self.schedule.total;
            let stop = cancel.load(Ordering::Relaxed);
            if step.is_multiple_of(train.log_every) || last || stop {
                let seconds = since.0.elapsed().as_secs_f64();
                let steps = step - since.1;
                let waited = batches.take_waited().as_secs_f64() / seconds;
                let report = self.log(&losses, steps, seconds, waited, &mut metrics)?;
                since = (Instant::now(), step);
                loss = report.loss;
                observe(&report);
            }
            let pause = Instant::now();
            if stop || step.is_multiple_of(train.checkpoint_every) || last {
                self.checkpoint(&losses)?;
            }
            if stop && !last {
                return Err(TrainError::Cancelled);
            }
            if train.sample_every > 0 && (step.is_multiple_of(train.sample_every) || last) {
                self.sample(&mut metrics)?;
            }
            // Throughput is that of training.
            since.0 += pause.elapsed();
        }
        let checkpoint = self.folder.path().join("checkpoints/latest");
        Ok(Summary { step: self.state.step, loss, checkpoint })
    }

    fn loader(&self) -> Result<Loader, TrainError> {
        let (seed, batch_size) = (self.config.train.seed as u64, self.config.train.batch_size);
        let config = LoaderConfig { seed, batch_size, rank: 0, world_size: 1 };
        let mut loader = Loader::new(self.unpacker.cache().clone(), config)?;
        loader.seek(self.state.position);
        Ok(loader)
    }

    /// One optimizer step. Loss, its two parts and the gradient norm, as a tensor that nobody has waited for yet.
    fn step(&mut self, batches: &mut Prefetch) -> Result<Tensor, TrainError> {
        tch::manual_seed(CounterRng::new(&[self.config.train.seed as u64, 11, self.state.step]).next_u64() as i64);
        let grad_accum = self.config.train.grad_accum;
        let mut sum: Option<(Gradients, Tensor)> = None;
        for micro in 0..grad_accum {
            let mut batch = batches.next_batch();
            self.drop_labels(&mut batch, micro as u64);
            let [pre, post, class] = batch.to_device(self.runtime.device);
            let losses = self.model.losses(&pre, &post, &class, true);
            let grads = self.optimizer.backward(&losses.total())?;
            let values = Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0);
            match &mut sum {
                None => sum = Some((grads, values)),
                Some((total, total_values)) => {
                    total.add(&grads);
                    *total_values += values;
                }
            }
            self.state.position += self.config.train.batch_size as u64;
        }
        let (mut grads, mut values) = sum.expect("at least one micro-batch");
        if grad_accum > 1 {
            grads.scale(1.0 / grad_accum as f64);
            values /= grad_accum as f64;
        }
        let norm = grads.clip(self.config.train.grad_clip);
        self.optimizer.step(&grads, self.schedule.lr(self.state.step));
        self.state.step += 1;
        Ok(Tensor::cat(&[values, Tensor::from_slice(&[norm as f32]).to_device(self.runtime.device)], 0))
    }

    /// Replaces a share of the classes by "no class".
    fn drop_labels(&self, batch: &mut HostBatch, micro: u64) {
        let name = [self.config.train.seed as u64, 12, self.state.step, micro];
        let mut rng = CounterRng::new(&name);
        for class in &mut batch.class {
            if rng.uniform() < self.config.model.class_dropout {
                *class = self.config.model.class_num;
            }
        }
    }

    fn log(
        &mut self,
        losses: &Tensor,
        steps: u64,
        seconds: f64,
        waited: f64,
        metrics: &mut Metrics,
    ) -> Result<StepReport, TrainError> {
        let step = self.state.step;
        let [pre, post, norm] = [0, 1, 2].map(|i| losses.double_value(&[i]));
        let loss = pre + post;
        if let Err(diverged) = self.check_finite(losses) {
            metrics.log(step, &[("train/loss", loss), ("train/grad_norm", norm)])?;
            return Err(diverged);
        }
        let sequences = steps as f64 * (self.config.train.batch_size * self.config.train.grad_accum) as f64;
        let tokens_per_second = sequences * self.config.model.block_size as f64 / seconds;
        let epoch = self.state.position as f64 / self.unpacker.cache().num_images().max(1) as f64;
        let every = self.config.train.val_every;
        let validate = step == self.schedule.total || (every > 0 && step.is_multiple_of(every));
        let val_loss = match &self.val {
            Some(val) if validate => Some(evaluate(&self.model, val, self.runtime.device, None)?.loss),
            _ => None,
        };
        let mut values = vec![
            ("epoch", epoch),
            ("lr", self.schedule.lr(step - 1)),
            ("wd", self.config.train.weight_decay),
            ("train/loss", loss),
            ("train/loss_pre", pre),
            ("train/loss_post", post),
            ("train/grad_norm", norm),
            ("tokens_per_second", tokens_per_second),
            ("data_wait_fraction", waited),
        ];
        values.extend(val_loss.map(|loss| ("val/loss", loss)));
        if let Some(above) = self.spikes.observe(loss) {
            tracing::warn!("the loss leapt to {loss:.4} at step {step}, {above:.4} above its running mean");
            values.push(("train/loss_spike", above));
        }
        metrics.log(step, &values)?;
        Ok(StepReport { step, steps: self.schedule.total, epoch, loss, tokens_per_second, val_loss })
    }

    /// Whether the last step's losses and gradient are numbers.
    fn check_finite(&self, losses: &Tensor) -> Result<(), TrainError> {
        if losses.isfinite().all().int64_value(&[]) == 1 {
            return Ok(());
        }
        let loss = losses.double_value(&[0]) + losses.double_value(&[1]);
        let last = self.folder.latest()?.map_or("none yet".into(), |c| c.path.display().to_string());
        Err(TrainError::Diverged { step: self.state.step, loss, last })
    }

    /// Publishes the state after the step that had `losses`; never one that is beyond repair, which would push out good ones.
    fn checkpoint(&self, losses: &Tensor) -> Result<(), TrainError> {
        self.check_finite(losses)?;
        let train = &self.config.train;
        let keep = Keep { last: train.keep_last, every: train.keep_every };
        self.folder.publish(&self.state, keep, |path| {
            save_safetensors(&path.join("model.safetensors"), self.optimizer.leaves(), HashMap::new())?;
            self.optimizer.save(&path.join("optimizer.safetensors"))
        })?;
        Ok(())
    }

    fn sample(&mut self, metrics: &mut Metrics) -> Result<(), TrainError> {
        let Some(sample) = &mut self.sample else { return Ok(()) };
        let step = self.state.step;
        let picture = sample(&self.model).map_err(|source| TrainError::Sample { step, source })?;
        metrics.picture(step, "samples", &picture)?;
        Ok(())
    }
}

/// Kind of matrix products for a runtime.
fn compute_kind(runtime: &Runtime) -> Result<Kind, TrainError> {
    if runtime.precision == Precision::Fp16 {
        let what = "fp16 needs loss scaling, which is not here yet; use bf16 or fp32".into();
        return Err(TrainError::Config { place: "train.precision".into(), what });
    }
    if runtime.device == Device::Cpu && runtime.precision != Precision::Fp32 {
        tracing::warn!("training on the CPU in fp32: {} pays on GPUs only", runtime.precision.name());
        return Ok(Kind::Float);
    }
    Ok(runtime.precision.kind())
}

fn schedule(config: &ArConfig, images: usize) -> WarmupLinear {
    let train = &config.train;
    let per_epoch = images as f64 / (train.batch_size * train.grad_accum) as f64;
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
        let file = checkpoint.path.join("model.safetensors");
        let params = Weights::open(&file)?.params_below("")?;
        params.check(&config.model.tensors(), &file, "the model of this run")?;
        return Ok((params, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { step: 0, position: 0, seed: config.train.seed, tokenizer };
    let params = match &config.train.init_from {
        Some(path) => {
            let weights = ArWeights::open(Path::new(path), Some(config.model.n_head))?;
            weights.params.check(&config.model.tensors(), &weights.path, "the model that [model] describes")?;
            weights.params
        }
        None => initial_params(&config.model, config.train.seed),
    };
    Ok((params, state, None))
}

/// Teacher-forced losses over a whole cache.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    /// Sum of both parts, nats a token.
    pub loss: f64,
    /// Low bits.
    pub loss_pre: f64,
    /// High bits.
    pub loss_post: f64,
    /// Tokens looked at.
    pub tokens: u64,
}

/// Mean losses of `model` over every row of a cache (or the first `limit`), in the cache's order.
///
/// # Errors
/// None today; the signature leaves room for readers that can fail.
pub fn evaluate(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
) -> Result<Evaluation, TrainError> {
    const BATCH: usize = 16;
    let _no_grad = tch::no_grad_guard();
    let rows: Vec<usize> = (0..cache.cache().num_rows().min(limit.unwrap_or(usize::MAX))).collect();
    let (mut pre_sum, mut post_sum) = (0.0, 0.0);
    for chunk in rows.chunks(BATCH) {
        let [pre, post, class] = cache.unpack(chunk).to_device(device);
        let losses = model.losses(&pre, &post, &class, false);
        pre_sum += losses.pre.double_value(&[]) * chunk.len() as f64;
        post_sum += losses.post.double_value(&[]) * chunk.len() as f64;
    }
    let count = rows.len().max(1) as f64;
    let (loss_pre, loss_post) = (pre_sum / count, post_sum / count);
    let tokens = rows.len() as u64 * model.config.block_size as u64;
    Ok(Evaluation { loss: loss_pre + loss_post, loss_pre, loss_post, tokens })
}
