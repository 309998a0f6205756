//! The losses on the encoder's output: low entropy per position, high entropy over the codebook, commitment. Source: Yu et al.,
//! arXiv 2310.05737, section 3.1; the reference's `LFQ`.
//!
//! The reference's softmax over all 2^z corners is a product over bits. So the entropy of a position is a sum over bits,
//! and the mean distribution over the codebook is one product of two `[P, 2^(z/2)]` matrices: exact, without the
//! `[P, 2^z]` matrix. Shape suffixes: `p` positions, `z` bits.

use tch::{Kind, Tensor};
use tokengrid_model::lfq;

/// Logit of "bit is 1" for h: 2 (h - (-h)) / temperature, temperature 0.01.
const LOGIT_SCALE: f64 = 400.0;
/// Added inside logarithms, as in the reference.
const LOG_EPS: f64 = 1e-5;

/// Both entropies, scalars in nats, and the loss.
#[derive(Debug)]
pub struct EntropyLoss {
    /// Mean entropy of a position's distribution over the codebook; without a gradient.
    pub sample: Tensor,
    /// Entropy of the mean distribution; without a gradient.
    pub codebook: Tensor,
    /// `sample - codebook`, which carries the gradient.
    pub total: Tensor,
}

/// Entropy losses of `h [B, z, H, W]`, in f32 (f64 where h is).
///
/// The gradient is computed here together with the values, by hand: that shares the factors, needs no graph, and keeps a
/// few `[P, 2^(z/2)]` matrices for as long as this function runs.
pub fn entropy_loss(h_bzhw: &Tensor) -> EntropyLoss {
    let z = h_bzhw.size()[1];
    let kind = if h_bzhw.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let h_pz = h_bzhw.permute([0, 2, 3, 1]).reshape([-1, z]).to_kind(kind);
    let constant_pz = h_pz.detach();
    let (sample, codebook, gradient_pz) = tch::no_grad(|| entropies(&constant_pz));
    // Its value is `sample - codebook`, since the first term is 0; its derivative by h is the gradient.
    let total = ((h_pz - constant_pz) * gradient_pz).sum(kind) + (&sample - &codebook);
    EntropyLoss { sample, codebook, total }
}

/// Both entropies of `h [P, z]`, and the gradient of their difference.
fn entropies(h_pz: &Tensor) -> (Tensor, Tensor, Tensor) {
    let (positions, z) = h_pz.size2().expect("positions and bits");
    let (share, kind) = (1.0 / positions as f64, h_pz.kind());
    let logit_pz = h_pz * LOGIT_SCALE;
    // Both tails directly: 1 - p would lose the small one.
    let (one_pz, zero_pz) = (logit_pz.sigmoid(), (-&logit_pz).sigmoid());
    let sample = bit_entropy(&logit_pz).sum(kind) * share;
    let sample_gradient_pz = -&logit_pz * &one_pz * &zero_pz;

    let half = z / 2;
    let low = Corners::new(&one_pz.narrow(1, 0, half), &zero_pz.narrow(1, 0, half));
    let high = Corners::new(&one_pz.narrow(1, half, z - half), &zero_pz.narrow(1, half, z - half));
    let mean_hl = high.probability_pc.transpose(0, 1).matmul(&low.probability_pc) * share;
    // log(mean + eps) less log(eps): for 18 bits the mean is below eps almost everywhere, and a constant added to all
    // corners does not change the gradient, only its rounding.
    let log_hl = (&mean_hl / LOG_EPS).log1p_();
    let codebook = -(&mean_hl * &log_hl).sum(kind) - LOG_EPS.ln();
    // Of -codebook, by the mean.
    let slope_hl = log_hl + &mean_hl / (&mean_hl + LOG_EPS);
    let by_low_pl = high.probability_pc.matmul(&slope_hl);
    let by_high_ph = low.probability_pc.matmul(&slope_hl.transpose(0, 1));
    let codebook_gradient_pz = Tensor::cat(&[low.gradient(by_low_pl), high.gradient(by_high_ph)], 1);
    (sample, codebook, (sample_gradient_pz + codebook_gradient_pz) * (LOGIT_SCALE * share))
}

/// Entropy of a bit whose logit is a: softplus(-|a|) + |a| sigmoid(-|a|).
fn bit_entropy(logit: &Tensor) -> Tensor {
    let size = logit.abs();
    let negative = -&size;
    negative.softplus() + size * negative.sigmoid()
}

/// The distribution over all corners of some bits at every position. Shape suffixes: `n` bits, `c = 2^n` corners.
struct Corners {
    one_pn: Tensor,
    zero_pn: Tensor,
    /// The first bit is the corner's least significant one.
    probability_pc: Tensor,
}

impl Corners {
    fn new(one_pn: &Tensor, zero_pn: &Tensor) -> Corners {
        let (positions, bits) = one_pn.size2().expect("positions and bits");
        let start = Tensor::ones([positions, 1], (one_pn.kind(), one_pn.device()));
        let double = |p: Tensor, k: i64| Tensor::cat(&[&p * zero_pn.narrow(1, k, 1), &p * one_pn.narrow(1, k, 1)], 1);
        let probability_pc = (0..bits).fold(start, double);
        Corners { one_pn: one_pn.shallow_clone(), zero_pn: zero_pn.shallow_clone(), probability_pc }
    }

    /// Gradient by the logits `[P, n]` from that by the probabilities, `[P, c]`. A corner's probability is a product over
    /// bits; its logarithm changes with a bit's logit by P(0) where the corner has the bit, by -P(1) where it has not.
    fn gradient(&self, mut by_probability_pc: Tensor) -> Tensor {
        let weighted_pc = by_probability_pc.g_mul_(&self.probability_pc);
        let (corners, bits) = (self.probability_pc.size()[1], self.one_pn.size()[1]);
        let options = (Kind::Int64, self.one_pn.device());
        let corner_c1 = Tensor::arange(corners, options).unsqueeze(1);
        let has_bit_cn = corner_c1.bitwise_right_shift(&Tensor::arange(bits, options)).bitwise_and(1);
        let has_bit_cn = has_bit_cn.to_kind(self.one_pn.kind());
        let lacks_bit_cn = 1.0 - &has_bit_cn;
        weighted_pc.matmul(&has_bit_cn) * &self.zero_pn - weighted_pc.matmul(&lacks_bit_cn) * &self.one_pn
    }
}

/// Mean squared distance of h to its signs; the signs carry no gradient.
pub(super) fn commit_loss(h: &Tensor) -> Tensor {
    (h - lfq::signs_of(h).detach()).square().mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::Weights;
    use tokengrid_test_support::{golden, stream};

    #[test]
    fn values_and_gradients_of_the_reference() {
        let data = Weights::open(&golden("lfq_losses.safetensors")).unwrap();
        for (z, grad_tolerance) in [(10, 1e-5), (14, 1e-4), (18, 1e-3)] {
            let get = |name: &str| data.tensor(&format!("{z}.{name}")).unwrap();
            let shape = get("grad_h").size();
            let (name, count) = (format!("v1:lfq:{z}"), shape.iter().product::<i64>() as usize);
            let h: Vec<f32> = stream(&name, count).map(|value| 0.05 * value as f32).collect();
            let h = Tensor::from_slice(&h).view(shape.as_slice()).set_requires_grad(true);
            let (entropy, commit) = (entropy_loss(&h), commit_loss(&h));
            let near = |value: &Tensor, name: &str| {
                let (value, want) = (value.double_value(&[]), get(name).double_value(&[]));
                assert!((value - want).abs() <= 1e-5 * want.abs().max(1e-3), "z = {z}, {name}: {value}, not {want}");
            };
            near(&entropy.sample, "sample_entropy");
            near(&entropy.codebook, "codebook_entropy");
            near(&commit, "commit");
            (entropy.total + commit).backward();
            let want = get("grad_h");
            let difference = (h.grad() - &want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
            assert!(difference <= grad_tolerance, "z = {z}: gradient differs by {difference:e}");
        }
    }

    /// The literal form, over all 2^z corners.
    fn naive(h_pz: &Tensor) -> Tensor {
        let z = h_pz.size()[1];
        let corners = lfq::codes_of(&Tensor::arange(1 << z, (Kind::Int64, tch::Device::Cpu)).view([-1, 1, 1]), z);
        let logit_pc = h_pz.matmul(&corners.view([-1, z]).to_kind(Kind::Double).transpose(0, 1)) * (2.0 / 0.01);
        let probability_pc = logit_pc.softmax(-1, Kind::Double);
        let log_pc = (logit_pc + LOG_EPS).log_softmax(-1, Kind::Double);
        let sample = -(&probability_pc * log_pc).sum(Kind::Double) / h_pz.size()[0];
        let mean_c = probability_pc.mean_dim([0i64].as_slice(), false, Kind::Double);
        sample + (&mean_c * (&mean_c + LOG_EPS).log()).sum(Kind::Double)
    }

    fn random_h(z: i64, deviation: f64) -> Tensor {
        tch::manual_seed(5);
        Tensor::randn([2, z, 5, 5], (Kind::Double, tch::Device::Cpu)) * deviation
    }

    #[test]
    fn the_factorised_form_equals_the_literal_one() {
        // From bits that are nearly undecided to bits that are almost certain; odd numbers of bits too.
        for (z, deviation) in [(1, 0.01), (5, 0.001), (10, 0.003), (10, 0.03), (11, 1.0)] {
            let (ours, theirs) = (random_h(z, deviation), random_h(z, deviation));
            let (ours, theirs) = (ours.set_requires_grad(true), theirs.set_requires_grad(true));
            let total = entropy_loss(&ours).total;
            let literal = naive(&theirs.permute([0, 2, 3, 1]).reshape([-1, z]));
            let difference = (total.double_value(&[]) - literal.double_value(&[])).abs();
            assert!(difference < 1e-10, "z = {z}, deviation {deviation}: {difference:e}");
            total.backward();
            literal.backward();
            let difference = (ours.grad() - theirs.grad()).abs().max().double_value(&[]);
            let largest = theirs.grad().abs().max().double_value(&[]);
            assert!(difference < 1e-9 * largest.max(1.0), "z = {z}, deviation {deviation}: gradient {difference:e}");
        }
    }

    #[test]
    fn single_precision_is_enough_at_18_bits() {
        let double = random_h(18, 0.03);
        let single = double.to_kind(Kind::Float).set_requires_grad(true);
        let double = single.detach().to_kind(Kind::Double).set_requires_grad(true);
        let (a, b) = (entropy_loss(&single), entropy_loss(&double));
        for (a, b) in [(&a.sample, &b.sample), (&a.codebook, &b.codebook)] {
            let (a, b) = (a.double_value(&[]), b.double_value(&[]));
            assert!((a - b).abs() < 1e-5 * b.abs(), "{a}, not {b}");
        }
        a.total.backward();
        b.total.backward();
        // The two terms nearly cancel here, which leaves a few digits less than the seven of either.
        let difference = (single.grad() - double.grad()).abs().max().double_value(&[]);
        assert!(difference < 2e-4 * double.grad().abs().max().double_value(&[]), "gradient differs by {difference:e}");
    }

    #[test]
    fn the_gradient_scales_with_the_loss() {
        let h = random_h(10, 0.03).set_requires_grad(true);
        entropy_loss(&h).total.backward();
        let once = h.grad().copy();
        (entropy_loss(&h).total * 3.0).backward();
        assert!(h.grad().allclose(&(once * 4.0), 1e-12, 1e-12, false));
    }
}
