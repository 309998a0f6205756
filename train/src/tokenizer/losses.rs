//! The losses on the encoder's output: low entropy a position, high entropy over the codebook, commitment.
//!
//! The reference's softmax over all 2^z corners is a product over bits. So the entropy of a position is a sum over bits,
//! and the mean distribution over the codebook is one product of two `[P, 2^(z/2)]` matrices: exact, without the
//! `[P, 2^z]` matrix. Shape suffixes: `p` positions, `z` bits.

use tch::{Kind, Tensor};
use tokengrid_tokenize::lfq;

/// Logit of "bit is 1" for h: 2 (h - (-h)) / temperature, temperature 0.01.
const LOGIT_SCALE: f64 = 400.0;
const LOG_EPS: f64 = 1e-5;

/// Both entropies; what is minimised is `sample - codebook`.
#[derive(Debug)]
pub struct EntropyLoss {
    /// Mean entropy of a position's distribution over the codebook.
    pub sample: Tensor,
    /// Entropy of the mean distribution.
    pub codebook: Tensor,
}

impl EntropyLoss {
    /// The term that is minimised.
    pub fn total(&self) -> Tensor {
        &self.sample - &self.codebook
    }
}

/// Entropy losses of `h [B, z, H, W]`, in nats.
pub fn entropy_loss(h_bzhw: &Tensor) -> EntropyLoss {
    let z = h_bzhw.size()[1];
    let logit_pz = h_bzhw.permute([0, 2, 3, 1]).reshape([-1, z]).to_kind(Kind::Float) * LOGIT_SCALE;
    let positions = logit_pz.size()[0] as f64;
    let size_pz = logit_pz.abs();
    // Entropy of one bit with logit a: softplus(-|a|) + |a| sigmoid(-|a|).
    let negative = -&size_pz;
    let bit_entropy_pz = negative.softplus() + &size_pz * negative.sigmoid();
    let sample = bit_entropy_pz.sum_dim_intlist([1i64].as_slice(), false, Kind::Float).mean(Kind::Float);
    // Both tails directly: 1 - p would lose the small one.
    let (one_pz, zero_pz) = (logit_pz.sigmoid(), (-&logit_pz).sigmoid());
    let half = z / 2;
    let corners =
        |from: i64, len: i64| corner_probabilities(&zero_pz.narrow(1, from, len), &one_pz.narrow(1, from, len));
    let (low, high) = (corners(0, half), corners(half, z - half));
    let mean = high.transpose(0, 1).matmul(&low) / positions;
    let codebook = -(&mean * (&mean + LOG_EPS).log()).sum(Kind::Float);
    EntropyLoss { sample, codebook }
}

/// Probabilities `[P, 2^n]` of all corners of n bits, the first bit least significant.
fn corner_probabilities(zero_pn: &Tensor, one_pn: &Tensor) -> Tensor {
    let bits = zero_pn.size()[1];
    let start = Tensor::ones([zero_pn.size()[0], 1], (Kind::Float, zero_pn.device()));
    (0..bits).fold(start, |p, k| Tensor::cat(&[&p * zero_pn.narrow(1, k, 1), &p * one_pn.narrow(1, k, 1)], 1))
}

/// Mean squared distance of h to its signs; the signs carry no gradient.
pub fn commit_loss(h: &Tensor) -> Tensor {
    (h - lfq::signs_of(h).detach()).square().mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_test_support::golden;
    use tokengrid_tokenize::Weights;

    #[test]
    fn values_and_gradients_of_the_reference() {
        let data = Weights::open(&golden("lfq_losses.safetensors")).unwrap();
        for (z, grad_tolerance) in [(10, 1e-5), (14, 1e-4), (18, 1e-3)] {
            let get = |name: &str| data.tensor(&format!("{z}.{name}")).unwrap();
            let h = get("h").set_requires_grad(true);
            let (entropy, commit) = (entropy_loss(&h), commit_loss(&h));
            let near = |value: &Tensor, name: &str| {
                let (value, want) = (value.double_value(&[]), get(name).double_value(&[]));
                assert!((value - want).abs() <= 1e-5 * want.abs().max(1e-3), "z = {z}, {name}: {value}, not {want}");
            };
            near(&entropy.sample, "sample_entropy");
            near(&entropy.codebook, "codebook_entropy");
            near(&commit, "commit");
            (entropy.total() + commit).backward();
            let want = get("grad_h");
            let difference = (h.grad() - &want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
            assert!(difference <= grad_tolerance, "z = {z}: gradient differs by {difference:e}");
        }
    }
}
