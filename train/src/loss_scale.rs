//! Loss scaling for fp16: gradients below its smallest number would vanish, so the loss is multiplied before they are
//! computed and they are divided afterwards. The factor adapts: it grows while gradients are finite; when one overflows, it is
//! halved and the step skipped. (Micikevicius et al., "Mixed Precision Training", arXiv 1710.03740.)

use serde::{Deserialize, Serialize};

/// The factor and its history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The loss is multiplied by this before the backward pass; a power of two.
    pub factor: f64,
    /// Steps without overflow since the factor last changed.
    pub good_steps: u64,
    /// Optimizer steps that were skipped so far.
    pub skipped_steps: u64,
    /// Whether losses are scaled at all, and gradients checked.
    pub dynamic: bool,
}

impl LossScale {
    /// The first factor, as in PyTorch's `GradScaler`.
    pub(crate) const INITIAL: f64 = 65536.0;
    /// Steps without overflow after which the factor is doubled, as in PyTorch's `GradScaler`.
    pub(crate) const GROWTH_STEPS: u64 = 2000;

    /// Upper limit of the factor: smaller gradients do not matter, and every power of two up to it survives JSON to the bit.
    pub const MAX: f64 = (1u64 << 40) as f64;

    /// No scaling.
    pub const OFF: LossScale = LossScale { dynamic: false, ..LossScale::DYNAMIC };

    /// A factor that adapts, starting at `LossScale::INITIAL`.
    pub const DYNAMIC: LossScale =
        LossScale { factor: LossScale::INITIAL, good_steps: 0, skipped_steps: 0, dynamic: true };

    /// Records a step whose gradients were all finite (`true`) or not, and adapts the factor.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            self.factor /= 2.0;
            self.good_steps = 0;
            self.skipped_steps += 1;
            return;
        }
        self.good_steps += 1;
        if self.good_steps == LossScale::GROWTH_STEPS {
            self.factor = (self.factor * 2.0).min(LossScale::MAX);
            self.good_steps = 0;
        }
    }

    /// Whether the factor cannot be the cause of an overflow: it is below 1, or there is no scaling.
    pub(crate) fn is_exhausted(&self) -> bool {
        !self.dynamic || self.factor < 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_on_overflow_and_doubles_after_2000_good_steps() {
        let mut scale = LossScale::DYNAMIC;
        scale.update(false);
        assert_eq!((scale.factor, scale.skipped_steps), (LossScale::INITIAL / 2.0, 1));
        (0..LossScale::GROWTH_STEPS - 1).for_each(|_| scale.update(true));
        assert_eq!(scale.factor, LossScale::INITIAL / 2.0);
        scale.update(true);
        assert_eq!((scale.factor, scale.good_steps), (LossScale::INITIAL, 0));
    }

    #[test]
    fn it_grows_to_its_maximum_and_no_further() {
        let mut scale = LossScale { factor: LossScale::MAX / 2.0, ..LossScale::DYNAMIC };
        (0..3 * LossScale::GROWTH_STEPS).for_each(|_| scale.update(true));
        assert_eq!(scale.factor, LossScale::MAX);
    }

    #[test]
    fn an_overflow_restarts_the_count() {
        let mut scale = LossScale::DYNAMIC;
        (0..LossScale::GROWTH_STEPS - 1).for_each(|_| scale.update(true));
        scale.update(false);
        scale.update(true);
        assert_eq!((scale.factor, scale.good_steps), (LossScale::INITIAL / 2.0, 1));
    }
}
