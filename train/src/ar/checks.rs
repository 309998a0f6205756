//! Checks of `[train]`: ranges, and keys that depend on each other.

use super::config::{FID, TrainSection, VAL_LOSS, VAL_LOSS_EMA};
use crate::config::check_betas;
use crate::run::Criterion;
use tokengrid_model::Precision;

/// The largest batch size and number of micro-batches: far more than any device holds, and few enough that no product of
/// sizes overflows.
const COUNT_MAX: usize = 1 << 20;

/// What `train.save_best` may name.
const CRITERIA: [Criterion; 3] = [
    Criterion { metric: VAL_LOSS, largest: false },
    Criterion { metric: VAL_LOSS_EMA, largest: false },
    Criterion { metric: FID, largest: false },
];

/// More samples than any published FID takes.
const FID_SAMPLES_MAX: usize = 10_000_000;

/// A key, and what would be right.
type Wrong = (&'static str, String);

impl TrainSection {
    /// Checks what types cannot express.
    ///
    /// # Errors
    /// The key and what would be right.
    pub(super) fn validate(&self) -> Result<(), Wrong> {
        self.check_counts()?;
        self.check_processes()?;
        self.check_schedule()?;
        self.check_optimizer()?;
        self.check_fid()?;
        self.logger.validate()?;
        if let Some(peak) = self.peak_tflops.filter(|peak| !(peak.is_finite() && *peak > 0.0)) {
            return Err(("train.peak_tflops", format!("{peak} is not a speed; expected more than 0")));
        }
        self.criterion().map_err(|what| ("train.save_best", what))?;
        match self.precision.parse::<Precision>() {
            Ok(_) => Ok(()),
            Err(_) => Err(("train.precision", "expected `fp32`, `tf32`, `bf16` or `fp16`".into())),
        }
    }

    /// What `save_best` names.
    ///
    /// # Errors
    /// No metric that checkpoints are compared by, or one that the run does not have.
    pub(super) fn criterion(&self) -> Result<Option<Criterion>, String> {
        let Some(name) = &self.save_best else { return Ok(None) };
        let criterion = Criterion::of(name, &CRITERIA)?;
        match criterion.metric {
            VAL_LOSS_EMA if self.ema_decay == 0.0 => {
                Err(format!("{VAL_LOSS_EMA} needs averages: set `train.ema_decay`"))
            }
            FID if self.fid_every == 0 => Err(format!("{FID} is not computed: set `train.fid_every`")),
            _ => Ok(Some(criterion)),
        }
    }

    fn check_counts(&self) -> Result<(), Wrong> {
        let (grad_accum, global_batch) = (self.grad_accum.count().unwrap_or(1), self.global_batch.unwrap_or(1));
        let sizes = [
            ("train.batch_size", self.batch_size),
            ("train.grad_accum", grad_accum),
            ("train.global_batch", global_batch),
        ];
        let steps = [
            ("train.log_every", self.log_every),
            ("train.checkpoint_every", self.checkpoint_every),
            ("train.max_steps", self.max_steps.unwrap_or(1)),
        ];
        let at_least_one = sizes.map(|(key, size)| (key, size as u64)).into_iter().chain(steps);
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "must be at least 1".into()));
        }
        match sizes.into_iter().find(|(_, value)| *value > COUNT_MAX) {
            Some((key, value)) => Err((key, format!("{value} is more than {COUNT_MAX}"))),
            None => Ok(()),
        }
    }

    fn check_processes(&self) -> Result<(), Wrong> {
        if !matches!(&*self.reduce_dtype, "fp32" | "bf16") {
            return Err(("train.reduce_dtype", "expected `fp32` or `bf16`".into()));
        }
        if !(self.timeout_secs >= 1.0 && self.timeout_secs <= 1e6) {
            return Err(("train.timeout_secs", format!("{} is out of range: 1 to 1000000", self.timeout_secs)));
        }
        Ok(())
    }

    fn check_schedule(&self) -> Result<(), Wrong> {
        if self.epochs == 0.0 {
            return Err(("train.epochs", "0 is not a number of epochs; expected more than 0".into()));
        }
        let lengths = [("train.epochs", self.epochs), ("train.warmup_epochs", self.warmup_epochs)];
        if let Some((key, value)) = lengths.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err((key, format!("{value} is not a number of epochs")));
        }
        if !(self.peak_lr.is_finite() && self.peak_lr > 0.0) {
            return Err(("train.peak_lr", format!("{} is not a learning rate; expected more than 0", self.peak_lr)));
        }
        let shares = [("train.wp0", self.wp0), ("train.wpe", self.wpe)];
        match shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((key, value)) => {
                Err((key, format!("{value} is not a fraction of the peak learning rate; expected 0 to 1")))
            }
            None => Ok(()),
        }
    }

    fn check_optimizer(&self) -> Result<(), Wrong> {
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            let what = format!("{} is not a weight decay; expected 0 or more", self.weight_decay);
            return Err(("train.weight_decay", what));
        }
        // Nothing is learnt at 0.
        if self.grad_clip.is_nan() || self.grad_clip <= 0.0 {
            let what = format!("{} is not a limit; expected more than 0, or `inf` for no clipping", self.grad_clip);
            return Err(("train.grad_clip", what));
        }
        // At 1 the averages never move.
        if !(0.0..1.0).contains(&self.ema_decay) {
            let what =
                format!("{} is not a decay rate; expected 0 (no averages) or more, and less than 1", self.ema_decay);
            return Err(("train.ema_decay", what));
        }
        check_betas(self.betas)
    }

    fn check_fid(&self) -> Result<(), Wrong> {
        if self.fid_every > 0 && self.fid_reference.as_ref().is_none_or(String::is_empty) {
            let what = "`train.fid_every` needs statistics to compare with: an .npz file, as `eval samples --save-stats` \
                        writes it";
            return Err(("train.fid_reference", what.into()));
        }
        if !(2..=FID_SAMPLES_MAX).contains(&self.fid_samples) {
            let what = format!("{} is out of range: 2 to {FID_SAMPLES_MAX}", self.fid_samples);
            return Err(("train.fid_samples", what));
        }
        match self.fid_cfg_scale.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
            Some(scale) => Err(("train.fid_cfg_scale", format!("{scale} is not a guidance scale; expected 0 or more"))),
            None => Ok(()),
        }
    }
}
