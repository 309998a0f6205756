//! The gradients of one micro-batch, added to those of the step.
//!
//! On the CPU in fp32 they come from [`FusedStep`]; elsewhere from autograd over the model, with the blocks' activations
//! recomputed in the backward pass where `train.recompute` asks for it.

use super::super::config::TrainSection;
use super::super::data::HostBatch;
use super::super::fused::FusedStep;
use super::super::recompute::recomputed;
use super::super::share::{MicroBatch, Sharing};
use super::autograd::AutogradSteps;
use super::{Engine, StepName};
use crate::TrainError;
use crate::loss_scale::LossScale;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_model::rng::CounterRng;
use tokengrid_model::{Params, Precision, Route, Runtime};

/// How gradients are computed.
#[derive(Debug)]
pub(super) enum Path {
    Fused(FusedSteps),
    Autograd(AutogradSteps),
    Recompute,
}

impl Path {
    /// Over the weights `leaves` of `model` and their gradients.
    pub(super) fn new(
        method: Method,
        model: &Rc<ArModel>,
        leaves: Params,
        gradients: Params,
        runtime: &Runtime,
    ) -> Path {
        match method {
            Method::Fused => Path::Fused(FusedSteps { steps: vec![], leaves, gradients }),
            Method::Autograd => Path::Autograd(AutogradSteps::new(Rc::clone(model), &leaves, &gradients, runtime)),
            Method::Recompute => {
                if runtime.route.graphs {
                    tracing::warn!(
                        "with train.recompute micro-batches are not captured as graphs: dropout is seeded in between"
                    );
                }
                Path::Recompute
            }
        }
    }
}

/// One fused step per size of micro-batch that occurs: usually one, and a second where shares are uneven.
#[derive(Debug)]
pub(super) struct FusedSteps {
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

/// The method that a configuration selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ar) enum Method {
    Fused,
    Autograd,
    Recompute,
}

impl Method {
    /// The method for matrix products in `compute`.
    pub(in crate::ar) fn of(train: &TrainSection, route: Route, compute: Kind) -> Method {
        if train.recompute {
            Method::Recompute
        } else if train.fused && route.own_kernels && compute == Kind::Float {
            Method::Fused
        } else {
            Method::Autograd
        }
    }
}

impl Engine {
    /// What the loss is multiplied with before the backward pass.
    fn loss_factor(&self) -> f64 {
        if self.scale.dynamic { self.scale.factor } else { 1.0 }
    }

    /// Adds the gradients of one block, weighted by its share of the step's samples. Returns its two losses in nats with the
    /// same weight, f32 `[2]`. `reached`: see [`FusedStep::run_in_stages`]; the other methods complete all gradients at the end.
    pub(super) fn micro_step(
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
        // A function of the block's index in the step, not of the process that computes it.
        let draw = &[name.seed as u64, 11, name.step, block.index as u64, 0];
        let seed = CounterRng::new(draw).next_u64() as i64;
        let losses = match &mut self.path {
            Path::Fused(step) => {
                let step = step.of_size(&self.config.model, samples);
                let losses = step.run_in_stages(batch, scale, Some(draw), reached);
                return Ok(Tensor::from_slice(&losses.map(|loss| loss as f32)) * weight);
            }
            Path::Autograd(steps) => {
                tch::manual_seed(seed);
                let step = steps.of_size(samples, weight);
                step.region().set(batch, scale);
                step.run()?;
                return Ok(step.region().losses());
            }
            Path::Recompute => {
                let batch = batch.to_device(self.runtime.device);
                recomputed(&self.model, &self.optimizer, &self.gradients, &batch, scale, seed)?
            }
        };
        Ok(Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0) * weight)
    }
}

/// Element type of matrix products for a runtime, and its loss scaling. The CPU computes in fp32 whatever was asked for.
/// With `fp16` losses are scaled there all the same, exactly, by powers of two: the run takes the same path as on a GPU.
pub(super) fn compute(runtime: &Runtime) -> (Kind, LossScale) {
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
