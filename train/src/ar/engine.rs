//! One optimizer step of the autoregressive model: micro-batches in, updated weights and losses out.
//!
//! On the CPU in fp32 the step is [`FusedStep`]; elsewhere it is autograd over [`ArModel`], with the blocks' activations
//! recomputed in the backward pass where `train.recompute` asks for it.
//!
//! In fp16 the loss is scaled before the backward pass, and a step whose gradients overflow is left out: to know that, the
//! step waits for the device. In other precisions a step of a single process on a GPU does not.

use super::config::{ArConfig, TrainSection};
use super::data::HostBatch;
use super::fused::FusedStep;
use super::recompute::recomputed;
use crate::TrainError;
use crate::loss_scale::LossScale;
use crate::optim::{AdamW, AdamWConfig, Gradients};
use crate::run::Processes;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ar::ArModel;
use tokengrid_model::rng::CounterRng;
use tokengrid_model::{Params, Precision, Runtime};

/// Model and optimizer.
#[derive(Debug)]
pub struct Engine {
    /// The model, over the weights that the optimizer updates.
    pub model: ArModel,
    /// The optimizer.
    pub optimizer: AdamW,
    /// How losses are scaled: a power of two in fp16, else not at all.
    pub scale: LossScale,
    config: ArConfig,
    device: Device,
    path: Path,
    /// Sums over the micro-batches of a step.
    gradients: Gradients,
}

/// How gradients are computed.
#[derive(Debug)]
enum Path {
    Fused(Box<FusedStep>),
    Autograd,
    Recompute,
}

/// Which way a configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Fused,
    Autograd,
    Recompute,
}

impl Method {
    /// With products in `compute` on `device`.
    pub fn of(train: &TrainSection, device: Device, compute: Kind) -> Method {
        if train.recompute {
            Method::Recompute
        } else if train.fused && device == Device::Cpu && compute == Kind::Float {
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

impl Engine {
    /// Moves `params` to the runtime's device.
    ///
    /// # Errors
    /// None today; the signature leaves room for devices that can fail.
    pub fn new(config: &ArConfig, params: &Params, runtime: &Runtime) -> Result<Engine, TrainError> {
        let train = &config.train;
        let adamw = AdamWConfig {
            betas: train.betas,
            eps: 1e-8,
            weight_decay: train.weight_decay,
            weight_decay_on_norms: train.weight_decay_on_norms,
        };
        let (optimizer, leaves) = AdamW::new(params, adamw, runtime.device);
        let (kind, scale) = compute(runtime);
        let model = ArModel::new(&config.model, &leaves, runtime.device, kind);
        let (gradients, views) = optimizer.zero_gradients();
        let path = match Method::of(train, runtime.device, kind) {
            Method::Fused => {
                // SAFETY: parameters and gradients belong to this engine, whose `&mut self` calls the step and the optimizer
                // one after the other.
                let step = unsafe { FusedStep::new(&config.model, &leaves, &views, train.batch_size) };
                Path::Fused(Box::new(step))
            }
            Method::Autograd => Path::Autograd,
            Method::Recompute => Path::Recompute,
        };
        Ok(Engine { model, optimizer, scale, config: config.clone(), device: runtime.device, path, gradients })
    }

    /// One update with learning rate `lr`; `next_batch` is called once a micro-batch. Both losses and the norm of the
    /// gradient before clipping, `[3]`, as a tensor that nobody has waited for yet.
    ///
    /// # Errors
    /// The tensor library fails, out of memory for one; another process is gone.
    pub fn step(
        &mut self,
        next_batch: &mut dyn FnMut(u64) -> HostBatch,
        name: StepName,
        lr: f64,
        processes: &dyn Processes,
    ) -> Result<Tensor, TrainError> {
        let grad_accum = self.config.train.grad_accum as u64;
        let scale = self.loss_factor() / grad_accum as f64;
        self.gradients.zero();
        let mut losses = Tensor::zeros([2], (Kind::Float, self.device));
        for micro in 0..grad_accum {
            let batch = next_batch(micro);
            // Ranks see other samples, so they draw other dropout.
            let draw = [name.seed as u64, 11, name.step, micro, processes.rank() as u64];
            losses += self.micro_step(&batch, scale, &draw)?;
        }
        losses /= grad_accum as f64;
        let mut exchanged = self.gradients.flats_mut();
        exchanged.push(&mut losses);
        // An overflow in one process is one in the mean: all of them leave the step out.
        processes.mean(&mut exchanged)?;
        let norm = self.update(lr);
        Ok(Tensor::cat(&[losses, norm.to_kind(Kind::Float).view([1])], 0))
    }

    /// What the loss is multiplied with before the backward pass.
    fn loss_factor(&self) -> f64 {
        if self.scale.dynamic { self.scale.factor } else { 1.0 }
    }

    /// Clips the gradients and steps, unless one of them overflowed in fp16; their norm before clipping, `[]`.
    fn update(&mut self, lr: f64) -> Tensor {
        if self.scale.dynamic {
            self.gradients.scale(1.0 / self.scale.factor);
        }
        let limit = self.config.train.grad_clip;
        let norm = match self.device {
            Device::Cpu => Tensor::from(self.gradients.clip(limit)),
            _ => self.gradients.clip_unseen(limit),
        };
        if self.scale.dynamic {
            let finite = norm.double_value(&[]).is_finite();
            self.scale.update(finite);
            if !finite {
                return norm;
            }
        }
        self.optimizer.step(&self.gradients, lr);
        norm
    }

    /// Adds the gradients of one micro-batch, times `scale`; its two losses.
    fn micro_step(&mut self, batch: &HostBatch, scale: f64, draw: &[u64]) -> Result<Tensor, TrainError> {
        let seed = CounterRng::new(draw).next_u64() as i64;
        let (losses, grads) = match &mut self.path {
            Path::Fused(step) => {
                let losses = step.run(batch, scale, Some(draw));
                return Ok(Tensor::from_slice(&losses.map(|loss| loss as f32)));
            }
            Path::Autograd => {
                tch::manual_seed(seed);
                let [pre, post, class] = batch.to_device(self.device);
                let losses = self.model.losses(&pre, &post, &class, true);
                let grads = self.optimizer.backward(&(losses.total() * scale))?;
                (losses, grads)
            }
            Path::Recompute => {
                let batch = batch.to_device(self.device);
                recomputed(&self.model, &self.optimizer, &batch, scale, seed)?
            }
        };
        self.gradients.add(&grads);
        Ok(Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0))
    }
}

/// Kind of matrix products for a runtime, and whether losses are scaled for it. A CPU computes in fp32 whatever was asked
/// for; losses are scaled there all the same, which powers of two do exactly, so that a run in fp16 goes the way that it
/// will go on a GPU.
fn compute(runtime: &Runtime) -> (Kind, LossScale) {
    let Runtime { device, precision } = *runtime;
    let scale = if precision == Precision::Fp16 { LossScale::DYNAMIC } else { LossScale::OFF };
    if device != Device::Cpu {
        return (precision.kind(), scale);
    }
    if precision != Precision::Fp32 {
        tracing::warn!("training on the CPU in fp32: {} pays on GPUs only", precision.name());
    }
    (Kind::Float, scale)
}
