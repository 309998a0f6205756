//! The best checkpoint of a run, by one of its metrics.

use serde::{Deserialize, Serialize};

/// A metric that `train.save_best` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Criterion {
    /// Its name in `metrics.jsonl`.
    pub metric: &'static str,
    /// Whether the best value is the largest one.
    pub largest: bool,
}

/// The best value so far. A part of a run's state, so it is an f32, which survives JSON to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Of which metric.
    pub metric: String,
    /// The value.
    pub value: f32,
    /// The step of the checkpoint that had it.
    pub step: u64,
}

impl Criterion {
    /// One of `known`, by its name in `metrics.jsonl` or with an underscore in place of the slash: `val/loss`, `val_loss`.
    ///
    /// # Errors
    /// The name is unknown; the error lists the known ones.
    pub(crate) fn of(name: &str, known: &[Criterion]) -> Result<Criterion, String> {
        let is_named =
            |criterion: &&Criterion| name == criterion.metric || name == criterion.metric.replacen('/', "_", 1);
        known.iter().find(is_named).copied().ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|criterion| format!("`{}`", criterion.metric)).collect();
            format!("`{name}` is not a metric to compare checkpoints by; expected {}", names.join(", "))
        })
    }

    /// The new best, if the metric has `value` after `step`; `None` if that is no improvement over `best`, or not finite.
    pub(crate) fn surpassed(&self, best: Option<&Best>, value: f64, step: u64) -> Option<Best> {
        let value = value as f32;
        let is_better = match best.filter(|best| best.metric == self.metric) {
            Some(best) if self.largest => value > best.value,
            Some(best) => value < best.value,
            None => value.is_finite(),
        };
        is_better.then(|| Best { metric: self.metric.into(), value, step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSS: Criterion = Criterion { metric: "val/loss", largest: false };
    const PSNR: Criterion = Criterion { metric: "val/psnr", largest: true };

    #[test]
    fn both_spellings_of_metrics_are_accepted() {
        for (name, criterion) in [("val/loss", LOSS), ("val_loss", LOSS), ("val/psnr", PSNR)] {
            assert_eq!(Criterion::of(name, &[LOSS, PSNR]), Ok(criterion));
        }
        let error = Criterion::of("loss", &[LOSS, PSNR]).unwrap_err();
        assert!(error.contains("`loss` is not") && error.contains("`val/loss`, `val/psnr`"), "{error}");
    }

    #[test]
    fn only_better_numbers_of_the_same_metric_surpass() {
        let best = LOSS.surpassed(None, 2.0, 10).unwrap();
        assert_eq!(best, Best { metric: "val/loss".into(), value: 2.0, step: 10 });
        for worse in [2.0, 2.5, f64::NAN, f64::INFINITY] {
            assert_eq!(LOSS.surpassed(Some(&best), worse, 20), None, "{worse}");
        }
        assert_eq!(LOSS.surpassed(Some(&best), 1.5, 20).unwrap().step, 20);
        assert_eq!(PSNR.surpassed(Some(&best), 1.0, 20).unwrap().metric, "val/psnr", "another metric replaces it");
        let best = PSNR.surpassed(None, 1.0, 20).unwrap();
        assert!(PSNR.surpassed(Some(&best), 0.5, 30).is_none() && PSNR.surpassed(Some(&best), 1.5, 30).is_some());
        assert_eq!(LOSS.surpassed(None, f64::NAN, 5), None);
    }
}
