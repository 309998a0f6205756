//! Notices when a loss leaps.

use serde::{Deserialize, Serialize};

/// Share of the past in the running mean and deviation.
const DECAY: f32 = 0.95;

/// Values seen before anything is called a spike.
const WARM_UP: u32 = 20;

/// So many mean deviations above the running mean is a spike, ...
const DEVIATIONS: f32 = 8.0;

/// ... if it is also this share of the mean above it: a loss that hardly varies has no spikes.
const SHARE: f32 = 0.05;

/// Compares every logged loss with a running mean of those before it. It is part of a run's state: a run that was continued
/// tells the same spikes. Its numbers are f32, which JSON gives back to the bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpikeWatch {
    mean: f32,
    deviation: f32,
    seen: u32,
}

impl SpikeWatch {
    /// Takes note of a loss. By how much it lies above what was usual, if it is a spike.
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
        // What counts as usual follows a spike only as far as the limit: one leap must not hide the next.
        let step = if spike { limit } else { above };
        // Early on a plain mean of what was seen, later one that forgets.
        let share = (1.0 / (self.seen + 1) as f32).max(1.0 - DECAY);
        self.mean += share * step;
        self.deviation += share * (step.abs() - self.deviation);
        self.seen = self.seen.saturating_add(1);
        spike.then_some(f64::from(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::rng::CounterRng;

    #[test]
    fn a_leap_is_told_once_and_noise_is_not() {
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
        assert_eq!(watch.observe(5.0), None, "falling is no spike");
    }
}
