//! A micro-batch by autograd: one [`Region`], forward and backward, for each size that occurs.

use super::super::data::{HostBatch, unpacked};
use crate::TrainError;
use crate::optim::backpropagate;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tokengrid_model::ar::ArModel;
use tokengrid_model::graph::{Captured, Region};
use tokengrid_model::transfer::upload;
use tokengrid_model::{Params, Route, Runtime};

/// Micro-batches by autograd over a model. Usually they have one size; where shares are uneven, two.
#[derive(Debug)]
pub(in crate::ar) struct AutogradSteps {
    model: Rc<ArModel>,
    /// Parameters and the sums of their gradients.
    leaves: Rc<[(Tensor, Tensor)]>,
    runtime: Runtime,
    steps: Vec<Captured<MicroBatchRegion>>,
}

impl AutogradSteps {
    /// Over the weights `leaves` of `model` and the sums of their gradients, under the same names.
    pub(super) fn new(model: Rc<ArModel>, leaves: &Params, gradients: &Params, runtime: &Runtime) -> AutogradSteps {
        let pairs = leaves.iter().map(|(name, leaf)| (leaf.shallow_clone(), gradients.get(name).shallow_clone()));
        AutogradSteps { model, leaves: pairs.collect(), runtime: *runtime, steps: vec![] }
    }

    /// The step of a size, whose losses count with this weight.
    pub(super) fn of_size(&mut self, samples: usize, weight: f64) -> &mut Captured<MicroBatchRegion> {
        let has_it = |step: &Captured<MicroBatchRegion>| {
            (step.region().samples, step.region().weight) == (samples as i64, weight)
        };
        let known = self.steps.iter().position(has_it);
        let at = known.unwrap_or_else(|| {
            // A graph keeps the memory of its activations: the first size is the usual one, others are not captured.
            let graphs = self.runtime.route.graphs && self.steps.is_empty();
            let runtime = Runtime { route: Route { graphs, ..self.runtime.route }, ..self.runtime };
            self.steps.push(Captured::new(self.region(samples as i64, weight), &runtime));
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    /// Whether micro-batches of the first size repeat a capture.
    pub(super) fn is_captured(&self) -> bool {
        self.steps.first().is_some_and(Captured::is_captured)
    }

    fn region(&self, samples: i64, weight: f64) -> MicroBatchRegion {
        let device = self.runtime.device;
        let numbers = samples * (2 * self.model.config.block_size + 1);
        MicroBatchRegion {
            model: Rc::clone(&self.model),
            leaves: Rc::clone(&self.leaves),
            samples,
            weight,
            batch: Tensor::zeros([numbers], (Kind::Int64, device)),
            scale: Tensor::zeros([], (Kind::Float, device)),
            losses: Tensor::zeros([2], (Kind::Float, device)),
        }
    }
}

/// Forward and backward pass of a micro-batch, whose gradients are added to the sums.
#[derive(Debug)]
pub(in crate::ar) struct MicroBatchRegion {
    model: Rc<ArModel>,
    leaves: Rc<[(Tensor, Tensor)]>,
    samples: i64,
    /// What the losses count in the step.
    weight: f64,
    /// Tokens and classes, as [`HostBatch::packed`] has them.
    batch: Tensor,
    /// What the loss is multiplied with before the backward pass, fp32 `[]`.
    scale: Tensor,
    /// Both losses times the weight, fp32 `[2]`.
    losses: Tensor,
}

impl MicroBatchRegion {
    /// What the next run computes.
    pub(super) fn set(&self, batch: &HostBatch, scale: f64) {
        let _no_grad = tch::no_grad_guard();
        self.batch.shallow_clone().copy_(&upload(&batch.packed(), self.batch.device()));
        let _ = self.scale.shallow_clone().fill_(scale);
    }

    /// The losses of the last run.
    pub(super) fn losses(&self) -> Tensor {
        self.losses.copy()
    }
}

impl Region for MicroBatchRegion {
    type Error = TrainError;
    const NAME: &'static str = "a micro-batch";

    fn run(&self) -> Result<(), TrainError> {
        let [pre, post, class] = unpacked(&self.batch, self.samples);
        let losses = self.model.losses(&pre, &post, &class, true);
        let leaves: Vec<(&Tensor, Tensor)> =
            self.leaves.iter().map(|(leaf, sum)| (leaf, sum.shallow_clone())).collect();
        let _ = backpropagate(&(losses.total() * &self.scale), None, leaves)?;
        let _no_grad = tch::no_grad_guard();
        let both = Tensor::stack(&[losses.pre.detach(), losses.post.detach()], 0);
        self.losses.shallow_clone().copy_(&(both * self.weight));
        Ok(())
    }
}
