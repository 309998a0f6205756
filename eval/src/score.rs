//! The inception score (Salimans et al., arXiv 1606.03498): how confident the classifier is of each picture, and how different
//! the pictures are.
//!
//! `exp` of the mean over pictures of `KL(p(y|x) || p(y))`, with p(y) the mean over the same pictures. It equals the
//! entropy of the mean less the mean of the entropies, so that only sums are kept.

use crate::inception::CLASSES;
use serde::Serialize;

/// Pictures per split by default: ten splits of 50,000 pictures, as in the ADM suite.
const SPLIT_IMAGES: usize = 5000;

/// Sums over the pictures of each split.
///
/// Picture i belongs to split i mod S. Folders that hold one class after the other (as `sample` writes them) would give splits
/// of a few classes each if they were cut into runs, and a score that is far too low.
#[derive(Debug)]
pub(crate) struct Scorer {
    splits: Vec<Split>,
    images: usize,
}

#[derive(Debug, Clone)]
struct Split {
    images: usize,
    /// Sum of p(y|x), by class.
    probabilities: Vec<f64>,
    /// Sum of the negated entropies, in nats.
    negentropy: f64,
}

/// The score over the splits, a number from 1 to the number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Mean over the splits.
    pub mean: f64,
    /// Standard deviation over the splits, with S in the denominator.
    pub std: f64,
    /// Splits that hold pictures.
    pub splits: usize,
}

/// The default number of splits for `images` pictures.
pub(crate) fn usual_splits(images: usize) -> usize {
    ((images + SPLIT_IMAGES / 2) / SPLIT_IMAGES).max(1)
}

impl Scorer {
    /// A scorer with `splits` splits, at least one.
    pub(crate) fn new(splits: usize) -> Scorer {
        let empty = Split { images: 0, probabilities: vec![0.0; CLASSES], negentropy: 0.0 };
        Scorer { splits: vec![empty; splits.max(1)], images: 0 }
    }

    /// Adds the logits of one picture.
    pub(crate) fn push(&mut self, logits: &[f32]) {
        let split = self.images % self.splits.len();
        self.splits[split].push(logits);
        self.images += 1;
    }

    /// The score; `None` without pictures.
    pub(crate) fn score(&self) -> Option<Score> {
        let scores: Vec<f64> = self.splits.iter().filter(|split| split.images > 0).map(Split::score).collect();
        let splits = scores.len();
        let mean = scores.iter().sum::<f64>() / splits as f64;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / splits as f64;
        (splits > 0).then(|| Score { mean, std: variance.sqrt(), splits })
    }
}

impl Split {
    fn push(&mut self, logits: &[f32]) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = |logit: f32| f64::from(logit) - f64::from(largest);
        let log_sum = logits.iter().map(|&logit| shifted(logit).exp()).sum::<f64>().ln();
        for (sum, &logit) in self.probabilities.iter_mut().zip(logits) {
            let log_probability = shifted(logit) - log_sum;
            let probability = log_probability.exp();
            *sum += probability;
            self.negentropy += probability * log_probability;
        }
        self.images += 1;
    }

    fn score(&self) -> f64 {
        let images = self.images as f64;
        let of_mean = |&sum: &f64| {
            let probability = sum / images;
            if probability > 0.0 { probability * probability.ln() } else { 0.0 }
        };
        (self.negentropy / images - self.probabilities.iter().map(of_mean).sum::<f64>()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_test_support::{golden_json, stream};

    fn sure_of(class: usize) -> Vec<f32> {
        (0..CLASSES).map(|c| if c == class { 60.0 } else { 0.0 }).collect()
    }

    #[test]
    fn the_score_of_given_logits_is_that_of_the_reference() {
        let golden = &golden_json("inception.json")["is_from_formula_logits"];
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let (name, scale) = (golden["name"].as_str().unwrap(), number(&golden["scale"]));
        let pictures = golden["shape"][0].as_u64().unwrap() as usize;
        let logits: Vec<f32> = stream(name, pictures * CLASSES).map(|value| (scale * value) as f32).collect();
        let mut scorer = Scorer::new(1);
        logits.chunks_exact(CLASSES).for_each(|logits| scorer.push(logits));
        let (score, want) = (scorer.score().unwrap().mean, number(&golden["inception_score_one_split"]));
        assert!((score - want).abs() <= 1e-6 * want, "{score}, not {want}");
    }

    #[test]
    fn confident_and_different_predictions_score_their_number_of_classes() {
        let mut scorer = Scorer::new(1);
        (0..8).for_each(|i| scorer.push(&sure_of(i % 4)));
        let score = scorer.score().unwrap();
        assert!((score.mean - 4.0).abs() < 1e-9 && score.std == 0.0, "{score:?}");
        let mut unsure = Scorer::new(1);
        (0..8).for_each(|_| unsure.push(&vec![0.5; CLASSES]));
        assert!((unsure.score().unwrap().mean - 1.0).abs() < 1e-9);
        assert_eq!(Scorer::new(3).score(), None);
    }

    #[test]
    fn classes_in_order_are_spread_over_the_splits() {
        let mut scorer = Scorer::new(2);
        (0..8).for_each(|i| scorer.push(&sure_of(i / 2)));
        let score = scorer.score().unwrap();
        assert!((score.mean - 4.0).abs() < 1e-9, "{score:?}");
        assert_eq!((score.splits, usual_splits(50_000), usual_splits(12)), (2, 10, 1));
    }
}
