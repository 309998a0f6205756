//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): scales, and the sequences that they need.
//!
//! A scale s gives `uncond + s * (cond - uncond)`: 1 is the class alone, 0 no class, more than 1 amplifies the
//! class. Low and high bits have separate scales.

use serde::{Deserialize, Serialize};

/// How the scale rises from 1 at the first position to its full value at the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The full value everywhere, as in the published results.
    #[default]
    Constant,
    /// `1 + (s - 1) * u` with u = position / (positions - 1).
    Linear,
    /// `1 + (s - 1) * (1 - cos(pi * u)) / 2`: slow at both ends.
    Cosine,
}

impl Schedule {
    /// The scale at `position` of `positions` where the full value is `scale`.
    pub fn at(self, scale: f64, position: i64, positions: i64) -> f64 {
        let u = if positions > 1 { position as f64 / (positions - 1) as f64 } else { 1.0 };
        let share = match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => u,
            Schedule::Cosine => (1.0 - (std::f64::consts::PI * u).cos()) / 2.0,
        };
        // Exactly `scale` at the end, without rounding errors.
        if share == 1.0 { scale } else { 1.0 + (scale - 1.0) * share }
    }
}

/// Which sequences a batch needs for its scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceMode {
    /// Every scale is 1: the class.
    Cond,
    /// Every scale is 0, everywhere: no class.
    Uncond,
    /// Both: the class in the first half of the batch, none in the second.
    Both,
}

impl GuidanceMode {
    /// The mode that `scale` (low bits, high bits) needs.
    pub fn of(scale: [f64; 2], schedule: Schedule) -> GuidanceMode {
        match scale {
            [1.0, 1.0] => GuidanceMode::Cond,
            [0.0, 0.0] if schedule == Schedule::Constant => GuidanceMode::Uncond,
            _ => GuidanceMode::Both,
        }
    }

    /// Sequences per image.
    pub fn count(self) -> usize {
        if self == GuidanceMode::Both { 2 } else { 1 }
    }

    /// Classes of the sequences of a batch of images with the classes `[B]`: `[B]`, or `[2 B]` for both; `none` stands for no
    /// class.
    pub fn classes(self, class_b: &[i64], none: i64) -> Vec<i64> {
        let uncond = class_b.iter().map(|_| none);
        match self {
            GuidanceMode::Cond => class_b.to_vec(),
            GuidanceMode::Uncond => uncond.collect(),
            GuidanceMode::Both => class_b.iter().copied().chain(uncond).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_go_from_one_to_the_scale() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            for scale in [0.0, 0.5, 1.9, 4.0] {
                let at = |t| schedule.at(scale, t, 256);
                assert_eq!((at(0), at(255)), (1.0, scale), "{schedule:?}");
                let between = (at(127) + at(128)) / 2.0;
                assert!((between - (1.0 + scale) / 2.0).abs() < 1e-12, "{schedule:?} {scale}: {between} in the middle");
                let rises = (1..256).all(|t| (at(t) - at(t - 1)) * (scale - 1.0) >= 0.0);
                assert!(rises, "{schedule:?} {scale}");
            }
        }
        assert!((Schedule::Linear.at(3.0, 64, 257) - 1.5).abs() < 1e-12);
        assert!((Schedule::Cosine.at(3.0, 64, 257) - (2.0 - 0.5f64.sqrt())).abs() < 1e-12);
        assert_eq!(Schedule::Constant.at(1.9, 0, 256), 1.9);
        assert_eq!(Schedule::Linear.at(1.9, 0, 1), 1.9);
    }

    #[test]
    fn a_batch_is_doubled_only_where_both_halves_are_used() {
        let mode = |scale| GuidanceMode::of(scale, Schedule::Constant);
        assert_eq!(mode([1.0, 1.0]), GuidanceMode::Cond);
        assert_eq!(mode([0.0, 0.0]), GuidanceMode::Uncond);
        assert_eq!(GuidanceMode::of([0.0, 0.0], Schedule::Linear), GuidanceMode::Both);
        assert_eq!([[0.0, 2.0], [1.0, 0.0], [1.0, 2.0]].map(mode), [GuidanceMode::Both; 3]);
        assert_eq!(GuidanceMode::Both.classes(&[3, 5], 10), [3, 5, 10, 10]);
        assert_eq!(GuidanceMode::Uncond.classes(&[3, 5], 10), [10, 10]);
    }
}
