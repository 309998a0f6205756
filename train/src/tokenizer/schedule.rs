//! The learning rate of a tokenizer's training: the reference's drops at epochs, or warm-up and a half cosine, or both.

use super::config::TokenizerTrainSection;

/// Learning rate as a function of steps (batches) and epochs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LrSchedule {
    /// The rate before any change.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Fraction of the rate that the cosine ends at; 1: no cosine.
    pub lr_end: f64,
    /// Steps of the whole run, for the cosine.
    pub steps: u64,
    /// Epochs at whose end the rate drops.
    pub drop_epochs: Vec<u64>,
    /// What a drop multiplies it by.
    pub drop_rate: f64,
}

impl LrSchedule {
    /// The schedule that `[train]` describes, for a run of `steps`.
    pub(super) fn new(train: &TokenizerTrainSection, steps: u64) -> LrSchedule {
        LrSchedule {
            lr: train.lr,
            warmup_steps: train.warmup_steps,
            lr_end: train.lr_end,
            steps,
            drop_epochs: train.lr_drop_epochs.clone(),
            drop_rate: train.lr_drop_rate,
        }
    }

    /// The rate of step `step` (from 0), after `epochs` whole epochs.
    pub(super) fn lr(&self, step: u64, epochs: u64) -> f64 {
        let drops = self.drop_epochs.iter().filter(|&&epoch| epochs >= epoch).count();
        self.lr * self.curve(step) * self.drop_rate.powi(drops as i32)
    }

    /// Linear warm-up, then a half cosine to `lr_end`.
    fn curve(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let passed = (step - self.warmup_steps) as f64 / self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * passed.min(1.0)).cos());
        self.lr_end + (1.0 - self.lr_end) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_constant_except_for_drops_at_the_end_of_epochs() {
        let train = TokenizerTrainSection { lr_drop_epochs: vec![200, 250], ..Default::default() };
        let schedule = LrSchedule::new(&train, 1_000_000);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12 * b;
        assert!(near(schedule.lr(0, 0), 1e-4) && near(schedule.lr(700_000, 199), 1e-4));
        assert!(near(schedule.lr(700_001, 200), 1e-5) && near(schedule.lr(900_000, 250), 1e-6));
    }

    #[test]
    fn warm_up_and_cosine() {
        let train = TokenizerTrainSection {
            lr: 1.0,
            warmup_steps: 10,
            lr_end: 0.2,
            lr_drop_epochs: vec![],
            ..Default::default()
        };
        let schedule = LrSchedule::new(&train, 110);
        assert!((schedule.lr(4, 0) - 0.5).abs() < 1e-12);
        assert!((schedule.lr(60, 0) - 0.6).abs() < 1e-12);
        assert!((schedule.lr(110, 0) - 0.2).abs() < 1e-12);
    }
}
