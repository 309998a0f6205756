//! Reports of logged steps: to the caller of the run, and as a line of metrics.

use super::config::{FID, VAL_LOSS, VAL_LOSS_EMA};
use super::evaluate::evaluate_among;
use super::mfu::flops_per_token;
use super::trainer::Trainer;
use crate::TrainError;
use crate::run::Metrics;
use std::time::Duration;
use tch::Tensor;
use tokengrid_model::ar::ArModel;

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Passes over the images so far.
    pub epoch: f64,
    /// Sum of both losses, in nats per token.
    pub loss: f64,
    /// Tokens per second of all processes together, without validations and checkpoints.
    pub tokens_per_second: f64,
    /// Model FLOPs utilisation, 0 to 1, where the device's peak is known.
    pub mfu: Option<f64>,
    /// Validation loss in nats per token, in steps that validated.
    pub val_loss: Option<f64>,
    /// The same of the averaged weights, where they are kept.
    pub val_loss_ema: Option<f64>,
    /// FID of samples, in steps that computed it.
    pub fid: Option<f64>,
}

/// Progress since the last logged step.
pub(super) struct Pace {
    pub steps: u64,
    pub seconds: f64,
    /// The part of the time that was spent waiting for tokens.
    pub waited: Duration,
}

impl Trainer {
    /// Reports the step that had `losses`, and validates; writes it where there are metrics to write to.
    pub(super) fn log(
        &mut self,
        losses: &Tensor,
        pace: Pace,
        metrics: Option<&mut Metrics>,
    ) -> Result<StepReport, TrainError> {
        let (step, steps) = (self.state.step, self.schedule.total);
        let [pre, post, norm] = [0, 1, 2].map(|i| losses.double_value(&[i]));
        let loss = pre + post;
        if let Err(diverged) = self.check_finite(losses) {
            if let Some(metrics) = metrics {
                let row = [&[("train/loss", loss), ("train/grad_norm", norm)], &self.scale_values()[..]].concat();
                metrics.log(step, &row)?;
            }
            return Err(diverged);
        }
        let sequences = pace.steps as f64 * self.samples_per_step() as f64;
        let tokens_per_second = sequences * self.config.model.block_size as f64 / pace.seconds;
        let epoch = self.state.position as f64 / self.unpacker.images().len().max(1) as f64;
        let mfu = self.mfu(tokens_per_second);
        let mut report = StepReport {
            step,
            steps,
            epoch,
            loss,
            tokens_per_second,
            mfu,
            val_loss: None,
            val_loss_ema: None,
            fid: None,
        };
        (report.val_loss, report.val_loss_ema) = self.validate()?;
        report.fid = self.fid()?;
        if let Some(metrics) = metrics {
            let values = self.metric_values(&report, [pre, post, norm], &pace);
            metrics.log(step, &values)?;
        }
        Ok(report)
    }

    /// The line of metrics of a step: its report, both losses in nats and the norm of the gradient.
    fn metric_values(
        &mut self,
        report: &StepReport,
        [pre, post, norm]: [f64; 3],
        pace: &Pace,
    ) -> Vec<(&'static str, f64)> {
        let mut values = vec![
            ("epoch", report.epoch),
            ("lr", self.schedule.lr(report.step - 1)),
            ("wd", self.config.train.weight_decay),
            ("train/loss", report.loss),
            ("train/loss_pre", pre),
            ("train/loss_post", post),
            ("train/grad_norm", norm),
            ("tokens_per_second", report.tokens_per_second),
            ("data_wait_fraction", pace.waited.as_secs_f64() / pace.seconds),
        ];
        values.extend(report.mfu.map(|mfu| ("mfu", mfu)));
        values.extend(self.scale_values());
        values.extend(report.val_loss.map(|loss| (VAL_LOSS, loss)));
        values.extend(report.val_loss_ema.map(|loss| (VAL_LOSS_EMA, loss)));
        values.extend(report.fid.map(|fid| (FID, fid)));
        values.extend(self.state.spikes.observe_at(report.step, report.loss));
        values
    }

    /// Loss on the validation cache, in steps that are to be validated: of the weights, and of their averages.
    fn validate(&self) -> Result<(Option<f64>, Option<f64>), TrainError> {
        let (step, every) = (self.state.step, self.config.train.val_every);
        let due = step == self.schedule.total || (every > 0 && step.is_multiple_of(every));
        let Some(val) = self.val.as_ref().filter(|_| due) else { return Ok((None, None)) };
        let loss = |model: &ArModel| {
            let evaluation = evaluate_among(model, val, self.runtime.device, None, None, &*self.processes)?;
            Ok::<f64, TrainError>(evaluation.loss)
        };
        let averaged = self.engine.averaged_model(&*self.processes)?;
        Ok((Some(loss(&self.engine.model)?), averaged.as_ref().map(loss).transpose()?))
    }

    /// Model FLOPs utilisation, 0 to 1, at `tokens_per_second` of all processes together.
    fn mfu(&self, tokens_per_second: f64) -> Option<f64> {
        let peak = self.peak_flops? * self.processes.world_size() as f64;
        Some(tokens_per_second * flops_per_token(&self.config.model) / peak)
    }

    /// What fp16 adds to the metrics.
    fn scale_values(&self) -> Vec<(&'static str, f64)> {
        let scale = self.engine.scale;
        let values = [("train/loss_scale", scale.factor), ("train/skipped_steps", scale.skipped_steps as f64)];
        values.into_iter().filter(|_| scale.dynamic).collect()
    }
}
