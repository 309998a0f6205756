//! Callbacks of a run: pictures of samples, and their FID, made with the current weights. The trainer itself depends on neither
//! the sampler nor Inception.

use super::trainer::Trainer;
use crate::TrainError;
use crate::process_group::ProcessGroup;
use crate::run::Metrics;
use std::error::Error;
use tokengrid_model::Picture;
use tokengrid_model::ar::ArModel;

/// What a hook may fail with.
pub type HookError = Box<dyn Error + Send + Sync>;

/// Makes a picture of samples with the current weights. It must leave libtorch's settings as they are; it may draw random
/// numbers, since every step seeds the generator again.
pub type SampleFn = Box<dyn FnMut(&ArModel) -> Result<Picture, HookError>>;

/// Computes the FID of samples with the current weights. It is called in all processes together and returns the same value in
/// each; `None` where it was cancelled. Otherwise as [`SampleFn`].
pub type FidFn = Box<dyn FnMut(&ArModel, &dyn ProcessGroup) -> Result<Option<f64>, HookError>>;

/// The hooks of a run.
#[derive(Default)]
pub(super) struct Hooks {
    pub sample: Option<SampleFn>,
    pub fid: Option<FidFn>,
}

impl Trainer {
    /// Calls `sample` every `train.sample_every` steps and at the end; the picture is added to the run's.
    pub fn sample_with(&mut self, sample: SampleFn) {
        self.hooks.sample = Some(sample);
    }

    /// Calls `fid` every `train.fid_every` steps and at the end, in every process; the result is one of the step's metrics.
    pub fn fid_with(&mut self, fid: FidFn) {
        self.hooks.fid = Some(fid);
    }

    /// Adds a picture of samples with the averaged weights where the run keeps them, else with the weights.
    pub(super) fn sample(&mut self, metrics: Option<&mut Metrics>) -> Result<(), TrainError> {
        // All processes have parts of the averages.
        let averaged = self.engine.averaged_model(&*self.processes)?;
        let (Some(sample), Some(metrics)) = (&mut self.hooks.sample, metrics) else { return Ok(()) };
        let step = self.state.step;
        let model = averaged.as_ref().unwrap_or(&self.engine.model);
        let picture = sample(model).map_err(|source| TrainError::Sample { step, source })?;
        metrics.picture(step, "samples", &picture)?;
        Ok(())
    }

    /// Whether a step, `last` or not, computes the FID.
    pub(super) fn is_fid_due(&self, last: bool) -> bool {
        let every = self.config.train.fid_every;
        self.hooks.fid.is_some() && every > 0 && (self.state.step.is_multiple_of(every) || last)
    }

    /// The FID with the averaged weights where the run keeps them, else with the weights; `None` in steps without one.
    pub(super) fn fid(&mut self) -> Result<Option<f64>, TrainError> {
        let (step, last) = (self.state.step, self.state.step == self.schedule.total);
        if !self.is_fid_due(last) {
            return Ok(None);
        }
        let averaged = self.engine.averaged_model(&*self.processes)?;
        let model = averaged.as_ref().unwrap_or(&self.engine.model);
        let Some(fid) = &mut self.hooks.fid else { return Ok(None) };
        let result = fid(model, &*self.processes);
        // An exchange that failed says by itself which process is gone.
        result.map_err(|source| match source.downcast::<TrainError>() {
            Ok(error) => *error,
            Err(source) => TrainError::Fid { step, source },
        })
    }
}
