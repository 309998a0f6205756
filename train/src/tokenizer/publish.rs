//! Checkpoints of a run; a state that is not finite ends it.

use super::report::NUM_SAMPLES;
use super::trainer::TokenizerTrainer;
use super::validation::reconstructions;
use crate::TrainError;
use crate::run::{Best, Keep, Metrics};

impl TokenizerTrainer {
    /// Publishes the state after the step that had `losses`, never one that is not finite, which would displace good ones.
    /// Without a validation set it comes with a picture of `batch`, reconstructed with the averaged weights.
    pub(super) fn checkpoint(
        &mut self,
        values: &[(&'static str, f64)],
        batch: &[u8],
        best: Option<Best>,
        metrics: Option<&mut Metrics>,
    ) -> Result<(), TrainError> {
        self.check_finite(values)?;
        // In fp16 a loss that is not finite leaves the weights as they were, but may come from them: the next step shows it.
        self.overdue = first_not_finite(values).is_some();
        if self.overdue && self.state.step < self.schedule.steps {
            return Ok(());
        }
        if self.overdue {
            return Err(self.divergence(values)?);
        }
        self.state.best = best.or(self.state.best.take());
        let Some(metrics) = metrics else {
            self.saved_step = Some(self.state.step);
            return Ok(());
        };
        // Losses are of the weights before the step.
        if !self.learner.is_finite() {
            return Err(self.divergence(values)?);
        }
        if self.val.is_none() {
            let side = self.config.train.image_size;
            let image_bytes = (side * side * 3) as usize;
            let few = &batch[..batch.len().min(NUM_SAMPLES * image_bytes)];
            let picture = reconstructions(&self.learner.ema_tokenizer(), few, side, self.runtime);
            metrics.picture(self.state.step, "train/reconstructions", &picture)?;
        }
        let keep = Keep { last: self.config.train.keep_last, every: self.config.train.keep_every };
        self.folder.publish(&self.state, keep, |path| self.learner.save(path))?;
        self.saved_step = Some(self.state.step);
        Ok(())
    }

    /// The best so far, if the step that had these validation metrics is it. The same in all processes.
    pub(super) fn new_best(&self, val: &[(&'static str, f64)]) -> Option<Best> {
        let criterion = self.config.train.criterion().ok()??;
        let (_, value) = val.iter().find(|(name, _)| *name == criterion.metric)?;
        criterion.surpassed(self.state.best.as_ref(), *value, self.state.step)
    }

    /// An error when a loss of either network is not finite, unless a smaller loss scale is left to try.
    pub(super) fn check_finite(&self, values: &[(&'static str, f64)]) -> Result<(), TrainError> {
        match first_not_finite(values) {
            Some(_) if self.learner.loss_scale().is_exhausted() => Err(self.divergence(values)?),
            _ => Ok(()),
        }
    }

    /// The error that ends a run whose last step had these losses.
    fn divergence(&self, values: &[(&'static str, f64)]) -> Result<TrainError, TrainError> {
        let what = match first_not_finite(values) {
            Some((name, value)) => format!("`{name}` ({value}) is"),
            None => "the updated weights, their averages or the optimizer's moments are".into(),
        };
        let last = self.folder.latest()?.map(|checkpoint| checkpoint.path);
        Ok(TrainError::Diverged { step: self.state.step, what, last })
    }
}

/// The first of some losses that is not finite.
fn first_not_finite<'a>(values: &[(&'a str, f64)]) -> Option<(&'a str, f64)> {
    values.iter().find(|(_, value)| !value.is_finite()).copied()
}
