//! One optimizer step of the autoregressive model: micro-batches in, updated weights and losses out.
//!
//! How the gradients of one micro-batch are computed: [`micro_step`]; what becomes of them: [`update`].
//!
//! In fp16 the loss is scaled before the backward pass, and a step whose gradients overflow is left out: to know that, the
//! step waits for the device. In other precisions a step of a single process on a GPU does not.

mod autograd;
mod micro_step;
mod update;

use super::config::ArConfig;
use super::data::HostBatch;
use super::exchange::{Buckets, Exchange};
use super::share::Sharing;
use crate::TrainError;
use crate::loss_scale::LossScale;
use crate::optim::{AdamW, AdamWConfig, Ema, Gradients, Shard};
use crate::process_group::ProcessGroup;
pub(super) use micro_step::Method;
use micro_step::{Path, compute};
use std::rc::Rc;
use tch::{Kind, Tensor};
use tokengrid_model::ar::ArModel;
use tokengrid_model::graph::Captured;
use tokengrid_model::guard::guarded;
use tokengrid_model::{Params, Runtime};
use update::UpdateRegion;

/// Model and optimizer of a run.
#[derive(Debug)]
pub struct Engine {
    /// The model, over the weights that the optimizer updates.
    pub model: Rc<ArModel>,
    /// The optimizer.
    pub optimizer: AdamW,
    /// The moving average of the weights, where `train.ema_decay` asks for it.
    pub(super) ema: Option<Ema>,
    /// Loss scaling, in fp16 only.
    pub scale: LossScale,
    pub(super) config: ArConfig,
    pub(super) runtime: Runtime,
    /// Element type of matrix products.
    pub(super) kind: Kind,
    path: Path,
    /// Sums over the micro-batches of a step.
    gradients: Gradients,
    buckets: Rc<Buckets>,
    /// The end of a step, where it is one region.
    update: Option<Captured<UpdateRegion>>,
    /// Samples of a step, where they do not follow from the configuration and the number of processes.
    global_batch: Option<usize>,
}

/// Identifies a step to everything random in it: equal names give equal dropout.
#[derive(Debug, Clone, Copy)]
pub struct StepName {
    /// Seed of the run.
    pub seed: i64,
    /// Optimizer steps before this one.
    pub step: u64,
}

/// Gives a block of this process, by its place among them.
type NextBatch<'a> = dyn FnMut(u64) -> Result<HostBatch, TrainError> + 'a;

impl Engine {
    /// An engine over copies of `params` on the runtime's device.
    ///
    /// # Errors
    /// The device has no memory for weights, gradients and moments, or fails.
    pub fn new(config: &ArConfig, params: &Params, runtime: &Runtime) -> Result<Engine, TrainError> {
        Self::sharded(config, params, runtime, Shard::WHOLE)
    }

    /// As [`Engine::new`], with a part of the optimizer's moments.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn sharded(config: &ArConfig, params: &Params, runtime: &Runtime, shard: Shard) -> Result<Engine, TrainError> {
        Ok(guarded(|| Engine::build(config, params, runtime, shard))?)
    }

    fn build(config: &ArConfig, params: &Params, runtime: &Runtime, shard: Shard) -> Engine {
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
        let mut model = ArModel::new(&config.model, &leaves, runtime.device, kind);
        model.compute_by(runtime.route);
        let model = Rc::new(model);
        let (gradients, views) = optimizer.zero_gradients();
        let path = Path::new(Method::of(train, runtime.route, kind), &model, leaves, views, runtime);
        let reduced = if train.reduce_dtype == "bf16" { Kind::BFloat16 } else { Kind::Float };
        let buckets = Rc::new(Buckets::new(&config.model, &optimizer, &gradients, reduced));
        let (config, runtime, global_batch) = (config.clone(), *runtime, None);
        let update = None;
        Engine { model, optimizer, ema, scale, config, runtime, kind, path, gradients, buckets, update, global_batch }
    }

    /// Sets the samples per step, of all processes together.
    pub(crate) fn set_global_batch(&mut self, samples: usize) {
        self.global_batch = Some(samples);
    }

    /// Whether micro-batches and the optimizer's update repeat what was captured of them: see [`tokengrid_model::graph`].
    pub fn is_captured(&self) -> bool {
        let are_micro_batches = matches!(&self.path, Path::Autograd(steps) if steps.is_captured());
        are_micro_batches && self.update.as_ref().is_some_and(Captured::is_captured)
    }

    /// How the samples of a step are shared among `world_size` processes.
    pub fn sharing(&self, world_size: usize) -> Sharing {
        let train = &self.config.train;
        let typed = || train.grad_accum.global_batch(train.batch_size, world_size);
        train.sharing(self.global_batch.unwrap_or_else(typed), world_size)
    }

    /// One update with learning rate `lr`; `next_batch` is called with the index of each micro-batch of this process
    /// ([`Engine::sharing`]). Returns f32 `[3]`: both losses in nats and the norm of the gradient before clipping. On a GPU
    /// the values may still be being computed.
    ///
    /// # Errors
    /// There is no next batch; libtorch fails, for example out of memory; another process is gone.
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
        self.optimizer.gather_parameters(processes)?;
        Ok(Tensor::cat(&[losses, norm.to_kind(Kind::Float).view([1])], 0))
    }

    /// Sums gradients and losses of a step over all processes; returns the losses, f32 `[2]`. An overflow in one process is one
    /// in the sum, so all of them skip the update.
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

    /// As [`Engine::sum`], adding block by block in the order of the stream: the same bits for any number of processes.
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
                for rank in 0..dealt {
                    let _ = sum.g_add_(&gathered.get(rank));
                }
            }
        }
        for (sum, range) in sums.iter().zip(buckets.ranges()) {
            range.shallow_clone().copy_(sum);
        }
        Ok(losses)
    }
}
