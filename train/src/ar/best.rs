//! Which step of a run has the best value of the metric that `train.save_best` names.

use super::config::{FID, VAL_LOSS, VAL_LOSS_EMA};
use super::report::StepReport;
use super::trainer::Trainer;
use crate::TrainError;
use crate::run::{Best, Criterion};

impl StepReport {
    /// A metric that checkpoints are compared by, in steps that have it.
    fn metric(&self, name: &str) -> Option<f64> {
        match name {
            VAL_LOSS => self.val_loss,
            VAL_LOSS_EMA => self.val_loss_ema,
            FID => self.fid,
            _ => None,
        }
    }
}

impl Trainer {
    /// Refuses a run that would never compute the metric of `train.save_best`; warns where it would compute it only once.
    ///
    /// # Errors
    /// The metric is one of the validation, and there is nothing to validate on.
    pub(super) fn check_criterion(&self) -> Result<(), TrainError> {
        let train = &self.config.train;
        let of_validation = |criterion: &Criterion| criterion.metric != FID;
        let Some(Criterion { metric: name, .. }) = train.criterion().ok().flatten().filter(of_validation) else {
            return Ok(());
        };
        if self.val.is_none() {
            let what = format!("{name} needs images to validate on: give --val-cache, or a cache with a split for it");
            return Err(TrainError::Config { place: "train.save_best".into(), what });
        }
        if train.val_every == 0 && self.processes.is_first() {
            tracing::warn!("train.save_best: the run is validated at its end only; `train.val_every` says how often");
        }
        Ok(())
    }

    /// The best so far, if the step of this report is it. The same in all processes, which all know the metrics.
    pub(super) fn new_best(&self, report: &StepReport) -> Option<Best> {
        let criterion = self.config.train.criterion().ok()??;
        let value = report.metric(criterion.metric)?;
        criterion.surpassed(self.state.best.as_ref(), value, report.step)
    }
}
