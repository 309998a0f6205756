//! Learning rates over the iterations of a run.

/// The reference's AR schedule: linear warm-up, a short plateau, linear decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupLinear {
    /// Highest learning rate, on the plateau.
    pub peak_lr: f64,
    /// Iterations of warm-up.
    pub warmup: u64,
    /// Iterations of the whole run.
    pub total: u64,
    /// Fraction of the peak at the first iteration.
    pub wp0: f64,
    /// Fraction of the peak at the end.
    pub wpe: f64,
}

impl WarmupLinear {
    /// Learning rate of iteration `it`, counted from 0.
    pub fn lr(&self, it: u64) -> f64 {
        if it < self.warmup {
            return self.peak_lr * (self.wp0 + (1.0 - self.wp0) * it as f64 / self.warmup as f64);
        }
        let span = self.total.saturating_sub(1 + self.warmup).max(1);
        let passed = ((it - self.warmup) as f64 / span as f64).min(1.0);
        // Share of the steps after the warm-up, as in the reference.
        const PLATEAU: f64 = 0.05;
        if passed < PLATEAU {
            self.peak_lr
        } else {
            self.peak_lr * (self.wpe + (1.0 - self.wpe) * (1.0 - passed) / (1.0 - PLATEAU))
        }
    }
}

/// Warns that a run continues with another length, on which its learning rate depends.
pub(crate) fn tell_other_length(before: u64, now: u64) {
    tracing::warn!(
        "the run now ends at step {now} instead of {before}: from here on the learning rate follows the schedule of the new \
         length, so the result is not that of a run of this length from the start"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_iteration_of_the_golden_schedule() {
        let json = tokengrid_test_support::golden_json("ar_train.json");
        let number = |key: &str| json[key].as_f64().unwrap();
        let per_epoch = json["iters_per_epoch"].as_u64().unwrap();
        let schedule = WarmupLinear {
            peak_lr: number("peak_lr"),
            warmup: json["warmup_epochs"].as_u64().unwrap() * per_epoch,
            total: json["epochs"].as_u64().unwrap() * per_epoch,
            wp0: number("wp0"),
            wpe: number("wpe"),
        };
        let expected = json["schedule_lr_wd_decay_wd_nodecay"].as_array().unwrap();
        assert_eq!(expected.len() as u64, schedule.total);
        for (it, row) in expected.iter().enumerate() {
            let want = row[0].as_f64().unwrap();
            assert!((schedule.lr(it as u64) - want).abs() <= 1e-12 * want, "iteration {it}");
        }
    }

    #[test]
    fn degenerate_runs_stay_finite() {
        let schedule = WarmupLinear { peak_lr: 1.0, warmup: 5, total: 3, wp0: 0.005, wpe: 0.1 };
        assert!((0..10).all(|it| schedule.lr(it).is_finite()));
    }
}
