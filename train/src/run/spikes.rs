//! Detects spikes of the loss.

use serde::{Deserialize, Serialize};

/// Decay of the running mean and deviation per logged loss.
const DECAY: f32 = 0.95;

/// Values seen before anything is called a spike.
const WARM_UP: u32 = 20;

/// A spike lies at least this many mean deviations above the running mean, ...
const DEVIATIONS: f32 = 8.0;

/// ... and at least this share of the mean above it: a loss that hardly varies has no spikes.
const SHARE: f32 = 0.05;

/// Compares every logged loss with a running mean of those before it. It is part of a run's state: a run that was continued
/// finds the same spikes. Its numbers are f32, which survive JSON to the bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpikeWatch {
    mean: f32,
    deviation: f32,
    seen: u32,
}

impl SpikeWatch {
    /// Records a loss. Returns by how much it lies above the running mean, if it is a spike.
    /// A loss that is not finite is ignored.
    pub fn observe(&mut self, loss: f64) -> Option<f64> {
        let loss = loss as f32;
        if !loss.is_finite() {
            return None;
        }
        if self.seen == 0 {
            self.mean = loss;
        }
        let above = loss - self.mean;
        let limit = (DEVIATIONS * self.deviation).max(SHARE * self.mean.abs());
        let spike = self.seen >= WARM_UP && above > limit;
        // The running mean follows a spike only as far as the limit: one spike must not hide the next.
        let step = if spike { limit } else { above };
        // At first the plain mean, later an exponential one.
        let share = (1.0 / (self.seen + 1) as f32).max(1.0 - DECAY);
        self.mean += share * step;
        self.deviation += share * (step.abs() - self.deviation);
        self.seen = self.seen.saturating_add(1);
        spike.then_some(f64::from(above))
    }

    /// Records the loss of a step; for a spike, warns and returns the metric `train/loss_spike`.
    pub(crate) fn observe_at(&mut self, step: u64, loss: f64) -> Option<(&'static str, f64)> {
        let above = self.observe(loss)?;
        tracing::warn!("the loss jumped to {loss:.4} at step {step}, {above:.4} above its running mean");
        Some(("train/loss_spike", above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::rng::CounterRng;

    #[test]
    fn a_spike_is_reported_once_and_noise_is_not() {
        let mut rng = CounterRng::new(&[1]);
        let mut watch = SpikeWatch::default();
        let mut spikes = vec![];
        for step in 0..2000u64 {
            let leap = if step == 500 || step == 503 { 4.0 } else { 0.0 };
            let loss = 12.0 - step as f64 * 0.002 + rng.uniform() + leap;
            spikes.extend(watch.observe(loss).map(|_| step));
        }
        assert_eq!(spikes, [500, 503]);
    }

    #[test]
    fn a_loss_that_stays_high_becomes_usual_and_nothing_else_is_a_spike() {
        let mut watch = SpikeWatch::default();
        (0..50).for_each(|_| assert_eq!(watch.observe(5.0), None));
        let told = (0..200).filter(|_| watch.observe(9.0).is_some()).count();
        assert!((1..100).contains(&told), "told {told} times");
        assert_eq!(watch.observe(f64::NAN), None);
        assert_eq!(watch.observe(5.0), None, "a decrease is not a spike");
    }
}
