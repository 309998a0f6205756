//! Reports of logged steps: to the caller of the run, and as a line of metrics; validation.

use super::trainer::TokenizerTrainer;
use super::validation::{Perceptual, ValidationOptions, validate};
use crate::TrainError;
use crate::run::Metrics;
use std::time::{Duration, Instant};
use tch::Tensor;

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerReport {
    /// Steps (batches) done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean absolute error of the reconstruction, in [0, 2].
    pub reconstruct_loss: f64,
    /// Peak signal-to-noise ratio of the batch, in dB.
    pub psnr: f64,
    /// Entropy of the codebook's use over the batch, in nats.
    pub codebook_entropy: f64,
    /// Crops per second of all processes together, without validations and checkpoints.
    pub images_per_second: f64,
    /// Mean PSNR over the validation set with the averaged weights, in dB, in steps that validated.
    pub val_psnr: Option<f64>,
}

/// Images in a picture of reconstructions.
pub(super) const NUM_SAMPLES: usize = 16;

/// The beginning of an interval of training.
pub(super) struct Since {
    pub time: Instant,
    pub step: u64,
}

/// Throughput over an interval.
pub(super) struct Rate {
    images_per_second: f64,
    /// Share of the time spent waiting for crops, 0 to 1.
    data_wait_fraction: f64,
}

impl Since {
    pub(super) fn rate(&self, step: u64, batch_size: usize, waited: Duration) -> Rate {
        let seconds = self.time.elapsed().as_secs_f64().max(1e-9);
        let images = (step - self.step) as f64 * batch_size as f64;
        Rate { images_per_second: images / seconds, data_wait_fraction: waited.as_secs_f64() / seconds }
    }
}

impl TokenizerTrainer {
    /// Reports the step that had the losses `values`, and writes it where there are metrics to write to.
    pub(super) fn report(
        &mut self,
        mut values: Vec<(&'static str, f64)>,
        lr: f64,
        rate: Rate,
        val: Vec<(&'static str, f64)>,
        metrics: Option<&mut Metrics>,
    ) -> Result<TokenizerReport, TrainError> {
        let (step, steps) = (self.state.step, self.schedule.steps);
        let find = |values: &[(&str, f64)], name: &str| {
            let found = values.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| *value)
        };
        let get = |name: &str| find(&values, name).unwrap_or(f64::NAN);
        if let Err(diverged) = self.check_finite(&values) {
            metrics.map(|metrics| metrics.log(step, &values)).transpose()?;
            return Err(diverged);
        }
        let report = TokenizerReport {
            step,
            steps,
            reconstruct_loss: get("train/reconstruct_loss"),
            psnr: get("train/psnr"),
            codebook_entropy: get("train/codebook_entropy"),
            images_per_second: rate.images_per_second,
            val_psnr: find(&val, "val/psnr"),
        };
        let loss = get("train/nll_loss");
        values.extend(self.state.spikes.observe_at(step, loss));
        values.extend([
            ("epoch", self.epoch()),
            ("global_step", self.learner.global_step() as f64),
            ("lr", lr),
            ("images_per_second", rate.images_per_second),
            ("data_wait_fraction", rate.data_wait_fraction),
            ("bad_images", self.images.num_bad() as f64),
        ]);
        let scale = self.learner.loss_scale();
        if scale.dynamic {
            let skipped = scale.skipped_steps as f64;
            values.extend([("train/loss_scale", scale.factor), ("train/skipped_steps", skipped)]);
        }
        values.extend(val);
        metrics.map(|metrics| metrics.log(step, &values)).transpose()?;
        Ok(report)
    }

    /// The averaged weights on the validation set: their numbers, and a picture of the first reconstructions.
    pub(super) fn validate(&self, metrics: Option<&mut Metrics>) -> Result<Vec<(&'static str, f64)>, TrainError> {
        let Some(set) = &self.val else { return Ok(vec![]) };
        let lpips = self.learner.perceptual();
        let distance = lpips.map(|lpips| |a_bchw: &Tensor, b_bchw: &Tensor| lpips.forward(a_bchw, b_bchw));
        let options = ValidationOptions {
            batch_size: self.config.train.batch_size,
            runtime: self.runtime,
            perceptual: distance.as_ref().map(|distance| distance as Perceptual),
            num_samples: NUM_SAMPLES,
        };
        let validation = validate(&self.learner.ema_tokenizer(), set, &options, &*self.processes)?;
        if let (Some(picture), Some(metrics)) = (&validation.samples, metrics) {
            metrics.picture(self.state.step, "val/reconstructions", picture)?;
        }
        Ok(validation.metrics())
    }
}
