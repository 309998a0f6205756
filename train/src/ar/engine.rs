//! One optimizer step of the autoregressive model: micro-batches in, updated weights and losses out.
//!
//! On the CPU in fp32 the step is [`FusedStep`]; elsewhere it is autograd over [`ArModel`], with the blocks' activations
//! recomputed in the backward pass where `train.recompute` asks for it.
//!
//! In fp16 the loss is scaled before the backward pass, and a step whose gradients overflow is left out: to know that, the
//! step waits for the device. In other precisions a step of a single process on a GPU does not.

use super::config::{ArConfig, TrainSection};
use super::data::HostBatch;
use super::exchange::{Buckets, Exchange};
use super::fused::FusedStep;
use super::recompute::recomputed;
use super::share::{MicroBatch, Sharing};
use crate::TrainError;
use crate::loss_scale::LossScale;
use crate::optim::{AdamW, AdamWConfig, Ema, Gradients, Shard, clip_factor};
use crate::process_group::ProcessGroup;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_model::guard::guarded;
use tokengrid_model::rng::CounterRng;
use tokengrid_model::{Params, Precision, Route, Runtime};

/// Model and optimizer.
#[derive(Debug)]
pub struct Engine {
    /// The model, over the weights that the optimizer updates.
    pub model: ArModel,
    /// The optimizer.
    pub optimizer: AdamW,
    /// The moving average of the weights, where `train.ema_decay` asks for it.
    pub(super) ema: Option<Ema>,
    /// How losses are scaled: a power of two in fp16, else not at all.
    pub scale: LossScale,
    pub(super) config: ArConfig,
    pub(super) runtime: Runtime,
    /// What products are computed in.
    pub(super) kind: Kind,
    path: Path,
    /// Sums over the micro-batches of a step.
    gradients: Gradients,
    buckets: Rc<Buckets>,
    /// Samples of a step, where they do not follow from the configuration and the number of processes.
    global_batch: Option<usize>,
}

/// How gradients are computed.
#[derive(Debug)]
enum Path {
    Fused(FusedSteps),
    Autograd,
    Recompute,
}

/// Steps for micro-batches of the sizes that occur: usually one, and the rest where shares are uneven.
#[derive(Debug)]
struct FusedSteps {
    steps: Vec<FusedStep>,
    leaves: Params,
    gradients: Params,
}

impl FusedSteps {
    fn of_size(&mut self, model: &ModelConfig, size: usize) -> &mut FusedStep {
        let known = self.steps.iter().position(|step| step.batch_size() == size);
        let at = known.unwrap_or_else(|| {
            // SAFETY: parameters and gradients belong to this engine, whose `&mut self` calls the steps and the optimizer one
            // after the other; what an exchange takes meanwhile is complete.
            self.steps.push(unsafe { FusedStep::new(model, &self.leaves, &self.gradients, size) });
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }
}

/// Which way a configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Fused,
    Autograd,
    Recompute,
}

impl Method {
    /// With products in `compute`.
    pub(crate) fn of(train: &TrainSection, route: Route, compute: Kind) -> Method {
        if train.recompute {
            Method::Recompute
        } else if train.fused && route.own_kernels && compute == Kind::Float {
            Method::Fused
        } else {
            Method::Autograd
        }
    }
}

/// What stands for one step in everything random: the same name, the same dropout.
#[derive(Debug, Clone, Copy)]
pub struct StepName {
    /// Seed of the run.
    pub seed: i64,
    /// Steps before this one.
    pub step: u64,
}

/// Gives a block of this process, by its place among them.
type NextBatch<'a> = dyn FnMut(u64) -> Result<HostBatch, TrainError> + 'a;

impl Engine {
    /// Moves `params` to the runtime's device.
    ///
    /// # Errors
    /// None today; the signature leaves room for devices that can fail.
    pub fn new(config: &ArConfig, params: &Params, runtime: &Runtime) -> Result<Engine, TrainError> {
        Self::sharded(config, params, runtime, Shard::WHOLE)
    }

    /// As [`Engine::new`], with a part of the optimizer's moments.
    ///
    /// # Errors
    /// As there.
    pub fn sharded(config: &ArConfig, params: &Params, runtime: &Runtime, shard: Shard) -> Result<Engine, TrainError> {
        let train = &config.train;
        let adamw = AdamWConfig {
            betas: train.betas,
            eps: 1e-8,
            weight_decay: train.weight_decay,
            weight_decay_on_norms: train.weight_decay_on_norms,
        };
        let (mut optimizer, leaves) = AdamW::sharded(params, adamw, runtime.device, shard);
        optimizer.compute_by(runtime.route);
        let ema = (train.ema_decay > 0.0).then(|| Ema::new(&optimizer, train.ema_decay));
        let (kind, scale) = compute(runtime);
        let model = ArModel::new(&config.model, &leaves, runtime.device, kind);
        let (gradients, views) = optimizer.zero_gradients();
        let path = match Method::of(train, runtime.route, kind) {
            Method::Fused => Path::Fused(FusedSteps { steps: vec![], leaves, gradients: views }),
            Method::Autograd => Path::Autograd,
            Method::Recompute => Path::Recompute,
        };
        let reduced = if train.reduce_dtype == "bf16" { Kind::BFloat16 } else { Kind::Float };
        let buckets = Rc::new(Buckets::new(&config.model, &optimizer, &gradients, reduced));
        let (config, runtime, global_batch) = (config.clone(), *runtime, None);
        Ok(Engine { model, optimizer, ema, scale, config, runtime, kind, path, gradients, buckets, global_batch })
    }

    /// Takes so many samples in each step, of all processes together, from now on.
    pub(crate) fn set_global_batch(&mut self, samples: usize) {
        self.global_batch = Some(samples);
    }

    /// How the samples of a step are shared among `world_size` processes.
    pub fn sharing(&self, world_size: usize) -> Sharing {
        let train = &self.config.train;
        let typed = || train.grad_accum.global_batch(train.batch_size, world_size);
        train.sharing(self.global_batch.unwrap_or_else(typed), world_size)
    }

    /// One update with learning rate `lr`; `next_batch` is called once for each block of this process ([`Engine::sharing`]). Both losses and the norm of the
    /// gradient before clipping, `[3]`, as a tensor that nobody has waited for yet.
    ///
    /// # Errors
    /// There is no next batch; the tensor library fails, out of memory for one; another process is gone.
    pub fn step(
        &mut self,
        next_batch: &mut NextBatch<'_>,
        name: StepName,
        lr: f64,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        let sharing = self.sharing(processes.world_size());
        let losses = match self.config.train.deterministic_reduce {
            true => self.sum_in_order(&sharing, next_batch, name, processes)?,
            false => self.sum(&sharing, next_batch, name, processes)?,
        };
        let norm = self.update(lr, processes)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.optimizer);
        }
        self.optimizer.gather_parameters(processes)?;
        Ok(Tensor::cat(&[losses, norm.to_kind(Kind::Float).view([1])], 0))
    }

    /// Gradients and losses of a step, summed over all processes; the losses. An overflow in one process is one in the sum: all
    /// of them leave the step out.
    fn sum(
        &mut self,
        sharing: &Sharing,
        next_batch: &mut NextBatch<'_>,
        name: StepName,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        let (blocks, buckets) = (sharing.of_rank(processes.rank()), Rc::clone(&self.buckets));
        let mut exchange = Exchange::new(processes, &buckets);
        self.gradients.zero();
        let mut losses = Tensor::zeros([2], (Kind::Float, self.runtime.device));
        for (micro, block) in blocks.iter().enumerate() {
            let batch = next_batch(micro as u64)?;
            let is_last = micro + 1 == blocks.len();
            let mut reached = |stage| {
                if is_last {
                    exchange.reached(stage);
                }
            };
            losses += guarded(|| self.micro_step(&batch, block, sharing, name, &mut reached))??;
        }
        exchange.finish(&self.config.model)?;
        if processes.world_size() > 1 {
            processes.sum(&losses)?;
        }
        Ok(losses)
    }

    /// As [`Engine::sum`], added up block by block in the order of the stream: the same bits for any number of processes.
    fn sum_in_order(
        &mut self,
        sharing: &Sharing,
        next_batch: &mut NextBatch<'_>,
        name: StepName,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        let (blocks, buckets) = (sharing.of_rank(processes.rank()), Rc::clone(&self.buckets));
        let mut sums: Vec<Tensor> = buckets.ranges().map(Tensor::zeros_like).collect();
        let mut losses = Tensor::zeros([2], (Kind::Float, self.runtime.device));
        for round in 0..sharing.num_rounds() {
            self.gradients.zero();
            let mut own = Tensor::zeros([2], (Kind::Float, self.runtime.device));
            if let Some(block) = blocks.get(round) {
                let batch = next_batch(round as u64)?;
                own = guarded(|| self.micro_step(&batch, block, sharing, name, &mut |_| {}))??;
            }
            let dealt = sharing.num_dealt(round) as i64;
            for (sum, range) in sums.iter_mut().zip(buckets.ranges()).chain([(&mut losses, &own)]) {
                let gathered = processes.all_gather(range)?;
                (0..dealt).for_each(|rank| drop(sum.g_add_(&gathered.get(rank))));
            }
        }
        for (sum, range) in sums.iter().zip(buckets.ranges()) {
            range.shallow_clone().copy_(sum);
        }
        Ok(losses)
    }

    /// What the loss is multiplied with before the backward pass.
    fn loss_factor(&self) -> f64 {
        if self.scale.dynamic { self.scale.factor } else { 1.0 }
    }

    /// Clips the gradients and steps, unless one of them overflowed in fp16; their norm before clipping, `[]`.
    fn update(&mut self, lr: f64, processes: &dyn ProcessGroup) -> Result<Tensor, TrainError> {
        if self.scale.dynamic {
            self.gradients.scale(1.0 / self.scale.factor);
        }
        let limit = self.config.train.grad_clip;
        let has_own_only = !self.config.train.deterministic_reduce && self.buckets.sums_for_owners(processes);
        let (norm, clip) = if has_own_only {
            (self.gradients.clip_shared(limit, self.optimizer.shard(), processes)?, 1.0)
        } else if self.runtime.route.runs_ahead {
            (self.gradients.clip_async(limit), 1.0)
        } else {
            // The update scales them as it reads them.
            let norm = self.gradients.norm();
            (Tensor::from(norm), clip_factor(norm, limit))
        };
        if self.scale.dynamic {
            let finite = norm.double_value(&[]).is_finite();
            self.scale.update(finite);
            if !finite {
                return Ok(norm);
            }
        }
        self.optimizer.step_scaled(&self.gradients, lr, clip);
        Ok(norm)
    }

    /// Adds the gradients of one block, with the weight that it has in the step; its two losses, with the same weight.
    /// `reached`: see [`FusedStep::run_in_stages`]; the other ways have all gradients at the end only.
    fn micro_step(
        &mut self,
        batch: &HostBatch,
        block: &MicroBatch,
        sharing: &Sharing,
        name: StepName,
        reached: &mut dyn FnMut(usize),
    ) -> Result<Tensor, TrainError> {
        let samples = block.samples.len();
        let weight = samples as f64 / sharing.global_batch() as f64;
        let scale = self.loss_factor() * weight;
        // By the block's place in the step, whichever process has it.
        let draw = &[name.seed as u64, 11, name.step, block.index as u64, 0];
        let seed = CounterRng::new(draw).next_u64() as i64;
        let losses = match &mut self.path {
            Path::Fused(step) => {
                let step = step.of_size(&self.config.model, samples);
                let losses = step.run_in_stages(batch, scale, Some(draw), reached);
                return Ok(Tensor::from_slice(&losses.map(|loss| loss as f32)) * weight);
            }
            Path::Autograd => {
                tch::manual_seed(seed);
                let [pre, post, class] = batch.to_device(self.runtime.device);
                let losses = self.model.losses(&pre, &post, &class, true);
                let _ = self.optimizer.add_gradients(&(losses.total() * scale), None, |_| true, &self.gradients)?;
                losses
            }
            Path::Recompute => {
                let batch = batch.to_device(self.runtime.device);
                recomputed(&self.model, &self.optimizer, &self.gradients, &batch, scale, seed)?
            }
        };
        Ok(Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0) * weight)
    }
}

/// Kind of matrix products for a runtime, and whether losses are scaled for it. A CPU computes in fp32 whatever was asked
/// for; losses are scaled there all the same, which powers of two do exactly, so that a run in fp16 goes the way that it
/// will go on a GPU.
fn compute(runtime: &Runtime) -> (Kind, LossScale) {
    let precision = runtime.precision;
    let scale = if precision == Precision::Fp16 { LossScale::DYNAMIC } else { LossScale::OFF };
    if !runtime.route.own_kernels {
        return (precision.kind(), scale);
    }
    if precision != Precision::Fp32 {
        tracing::warn!("training on the CPU in fp32: {} pays on GPUs only", precision.name());
    }
    (Kind::Float, scale)
}
