//! One optimizer step of the autoregressive model: micro-batches in, updated weights and losses out.
//!
//! On the CPU in fp32 the step is [`FusedStep`]; elsewhere it is autograd over [`ArModel`], with the blocks' activations
//! recomputed in the backward pass where `train.recompute` asks for it.

use super::config::ArConfig;
use super::data::HostBatch;
use super::fused::FusedStep;
use super::model::ArModel;
use super::recompute::recomputed;
use crate::TrainError;
use crate::optim::{AdamW, AdamWConfig, Gradients};
use crate::rng::CounterRng;
use crate::run::Processes;
use tch::{Device, Kind, Tensor};
use tokengrid_tokenize::{Params, Precision, Runtime};

/// Model and optimizer.
#[derive(Debug)]
pub struct Engine {
    /// The model, over the weights that the optimizer updates.
    pub model: ArModel,
    /// The optimizer.
    pub optimizer: AdamW,
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
    /// A precision that training does not offer.
    pub fn new(config: &ArConfig, params: &Params, runtime: &Runtime) -> Result<Engine, TrainError> {
        let train = &config.train;
        let adamw = AdamWConfig {
            betas: train.betas,
            eps: 1e-8,
            weight_decay: train.weight_decay,
            weight_decay_on_norms: train.weight_decay_on_norms,
        };
        let (optimizer, leaves) = AdamW::new(params, adamw, runtime.device);
        let kind = compute_kind(runtime)?;
        let model = ArModel::new(&config.model, &leaves, runtime.device, kind);
        let (gradients, views) = optimizer.zero_gradients();
        let path = if train.recompute {
            Path::Recompute
        } else if train.fused && runtime.device == Device::Cpu && kind == Kind::Float {
            Path::Fused(Box::new(FusedStep::new(&config.model, &leaves, &views, train.batch_size)))
        } else {
            Path::Autograd
        };
        Ok(Engine { model, optimizer, config: config.clone(), device: runtime.device, path, gradients })
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
        self.gradients.zero();
        let mut losses = Tensor::zeros([2], (Kind::Float, self.device));
        for micro in 0..grad_accum {
            let batch = next_batch(micro);
            // Ranks see other samples, so they draw other dropout.
            let draw = [name.seed as u64, 11, name.step, micro, processes.rank() as u64];
            losses += self.micro_step(&batch, 1.0 / grad_accum as f64, &draw)?;
        }
        losses /= grad_accum as f64;
        let mut exchanged = self.gradients.flats_mut();
        exchanged.push(&mut losses);
        processes.mean(&mut exchanged)?;
        let norm = self.gradients.clip(self.config.train.grad_clip);
        self.optimizer.step(&self.gradients, lr);
        Ok(Tensor::cat(&[losses, Tensor::from_slice(&[norm as f32]).to_device(self.device)], 0))
    }

    /// Adds the gradients of one micro-batch, times `scale`; its two losses.
    fn micro_step(&mut self, batch: &HostBatch, scale: f64, draw: &[u64]) -> Result<Tensor, TrainError> {
        let seed = CounterRng::new(draw).next_u64() as i64;
        let (losses, mut grads) = match &mut self.path {
            Path::Fused(step) => {
                let losses = step.run(batch, scale, Some(draw));
                return Ok(Tensor::from_slice(&losses.map(|loss| loss as f32)));
            }
            Path::Autograd => {
                tch::manual_seed(seed);
                let [pre, post, class] = batch.to_device(self.device);
                let losses = self.model.losses(&pre, &post, &class, true);
                let grads = self.optimizer.backward(&losses.total())?;
                (losses, grads)
            }
            Path::Recompute => recomputed(&self.model, &self.optimizer, &batch.to_device(self.device), seed)?,
        };
        if scale != 1.0 {
            grads.scale(scale);
        }
        self.gradients.add(&grads);
        Ok(Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0))
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
