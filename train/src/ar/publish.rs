//! Checkpoints of a run, and when there must be none: a state that is not finite ends it.

use super::config::OPTIMIZER;
use super::engine::Engine;
use super::trainer::Trainer;
use crate::TrainError;
use crate::run::{Best, Keep, save_safetensors};
use tch::{Device, Tensor};
use tokengrid_model::ar::metadata_of;
use tokengrid_model::checkpoints::{EMA, MODEL};

impl Trainer {
    /// Whether gradients overflow in fp16 however little the loss is scaled.
    pub(super) fn overflows(&self) -> bool {
        self.engine.scale.dynamic && self.engine.scale.is_exhausted()
    }

    /// Refuses losses or a gradient norm that are not finite. In fp16 they may be, as long as a smaller loss scale is left to
    /// try.
    pub(super) fn check_finite(&self, losses: &Tensor) -> Result<(), TrainError> {
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

    /// Publishes the state after the step that had `losses`; never one that is not finite, which would displace good ones.
    /// `best`: this step is the best so far.
    pub(super) fn checkpoint(&mut self, losses: &Tensor, best: Option<Best>) -> Result<(), TrainError> {
        self.check_finite(losses)?;
        // In fp16 an infinite gradient leaves the weights as they were; a loss that is not finite may come from the weights.
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
            self.saved_step = Some(self.state.step);
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
        self.saved_step = Some(self.state.step);
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
