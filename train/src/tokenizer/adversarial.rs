//! Adversarial losses on patch logits `[B, 1, h, w]`. Source: the reference's `VQLPIPSWithDiscriminator`.

use std::str::FromStr;
use tch::{Kind, Tensor};

/// What the discriminator minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscLoss {
    /// `(mean relu(1 - real) + mean relu(1 + fake)) / 2`: the reference's.
    Hinge,
    /// Cross entropy of every patch.
    Vanilla,
    /// Cross entropy of every image's mean logit.
    NonSaturate,
}

impl DiscLoss {
    /// The loss, a scalar, of the discriminator's logits `[B, 1, h, w]` of real and generated images.
    pub(crate) fn of(self, real_b1hw: &Tensor, fake_b1hw: &Tensor) -> Tensor {
        let mean = |t: Tensor| t.mean(Kind::Float);
        let sum = match self {
            DiscLoss::Hinge => mean((-real_b1hw + 1.0).relu()) + mean((fake_b1hw + 1.0).relu()),
            DiscLoss::Vanilla => mean((-real_b1hw).softplus()) + mean(fake_b1hw.softplus()),
            DiscLoss::NonSaturate => {
                mean((-image_logits(real_b1hw)).softplus()) + mean(image_logits(fake_b1hw).softplus())
            }
        };
        sum * 0.5
    }
}

impl FromStr for DiscLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hinge" => Ok(DiscLoss::Hinge),
            "vanilla" => Ok(DiscLoss::Vanilla),
            "non_saturate" => Ok(DiscLoss::NonSaturate),
            _ => Err(format!("`{text}` is no loss; expected `hinge`, `vanilla` or `non_saturate`")),
        }
    }
}

/// The generator's term, non-saturating: low where the mean logit of every reconstruction is high. A scalar.
pub(super) fn generator_loss(fake_b1hw: &Tensor) -> Tensor {
    (-image_logits(fake_b1hw)).softplus().mean(Kind::Float)
}

/// Mean logit of every image, `[B]`.
fn image_logits(logits_b1hw: &Tensor) -> Tensor {
    logits_b1hw.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

/// LeCAM: keeps the discriminator's logits near the running average of the other side's.
/// Source: Tseng et al., "Regularizing Generative Adversarial Networks under Limited Data".
#[derive(Debug)]
pub(crate) struct LeCam {
    /// Running mean of the logits of real images, a scalar; starts at 0.
    pub real: Tensor,
    /// Running mean of the logits of reconstructions, a scalar; starts at 0.
    pub fake: Tensor,
}

impl LeCam {
    /// Decay of both averages, as in the reference.
    const DECAY: f64 = 0.999;

    /// Averages of 0 on `device`.
    pub(crate) fn new(device: tch::Device) -> LeCam {
        let zero = || Tensor::zeros([1i64; 0], (Kind::Float, device));
        LeCam { real: zero(), fake: zero() }
    }

    /// Updates the averages by logits `[B, 1, h, w]` of real and generated images, then returns the regulariser, a scalar.
    pub(crate) fn update(&mut self, real_b1hw: &Tensor, fake_b1hw: &Tensor) -> Tensor {
        tch::no_grad(|| {
            for (average, logits) in [(&mut self.real, real_b1hw), (&mut self.fake, fake_b1hw)] {
                let _ = average.lerp_(&logits.mean(Kind::Float), 1.0 - LeCam::DECAY);
            }
        });
        let above = (real_b1hw - &self.fake).relu().square().mean(Kind::Float);
        above + (&self.real - fake_b1hw).relu().square().mean(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images of two patches.
    fn logits(values: [f32; 4]) -> Tensor {
        Tensor::from_slice(&values).view([2, 1, 1, 2])
    }

    fn softplus(x: f64) -> f64 {
        x.exp().ln_1p()
    }

    #[track_caller]
    fn assert_value(loss: &Tensor, want: f64) {
        assert!((loss.double_value(&[]) - want).abs() < 1e-6, "{}, not {want}", loss.double_value(&[]));
    }

    #[test]
    fn every_discriminator_loss_by_hand() {
        let (real, fake) = (logits([2.0, 0.5, -1.0, 0.0]), logits([-2.0, 0.0, 1.0, 3.0]));
        assert_value(&DiscLoss::Hinge.of(&real, &fake), 0.5 * (3.5 / 4.0 + 7.0 / 4.0));
        let of = |values: [f64; 4], sign: f64| values.iter().map(|v| softplus(sign * v)).sum::<f64>() / 4.0;
        let vanilla = 0.5 * (of([2.0, 0.5, -1.0, 0.0], -1.0) + of([-2.0, 0.0, 1.0, 3.0], 1.0));
        assert_value(&DiscLoss::Vanilla.of(&real, &fake), vanilla);
        let images = 0.25 * (softplus(-1.25) + softplus(0.5) + softplus(-1.0) + softplus(2.0));
        assert_value(&DiscLoss::NonSaturate.of(&real, &fake), images);
        assert_value(&generator_loss(&fake), 0.5 * (softplus(1.0) + softplus(-2.0)));
    }

    #[test]
    fn lecam_averages_are_updated_before_they_are_used() {
        let mut lecam = LeCam::new(tch::Device::Cpu);
        let (real, fake) = (logits([1.0; 4]), logits([-2.0; 4]));
        let (mean_real, mean_fake) = (0.001, -0.002);
        let want = (1.0f64 - mean_fake).powi(2) + (mean_real + 2.0f64).powi(2);
        assert_value(&lecam.update(&real, &fake), want);
        assert_value(&lecam.real, mean_real);
        assert_value(&lecam.fake, mean_fake);
    }
}
