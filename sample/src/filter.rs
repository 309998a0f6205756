//! Which tokens may be sampled: top-k, then top-p. Shape suffixes: `b` batch, `v` vocabulary.

use tch::{Kind, Tensor};

/// Sets logits `[B, V]` below the k-th largest to minus infinity; ties stay, `k` is capped at V, 0 is off.
pub fn top_k(logits_bv: Tensor, k: i64) -> Tensor {
    let vocab = logits_bv.size()[1];
    if k <= 0 || k >= vocab {
        return logits_bv;
    }
    let (largest_bk, _) = logits_bv.topk(k, -1, true, true);
    let threshold_b1 = largest_bk.narrow(1, k - 1, 1);
    logits_bv.masked_fill(&logits_bv.lt_tensor(&threshold_b1), f64::NEG_INFINITY)
}

/// Keeps the most likely tokens until their probability exceeds `p`; the rest becomes minus infinity. 1 is off.
pub fn top_p(logits_bv: Tensor, p: f64) -> Tensor {
    if p >= 1.0 {
        return logits_bv;
    }
    let (sorted_bv, order_bv) = logits_bv.sort(-1, true);
    let mass_bv = sorted_bv.softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
    // The first token beyond the threshold stays: what counts is the mass before a token.
    let vocab = logits_bv.size()[1];
    let beyond_bv = mass_bv.gt(p).narrow(1, 0, vocab - 1);
    let first_b1 = Tensor::zeros([logits_bv.size()[0], 1], (Kind::Bool, logits_bv.device()));
    let drop_bv = Tensor::cat(&[first_b1, beyond_bv], 1);
    let drop_bv = drop_bv.zeros_like().scatter(1, &order_bv, &drop_bv);
    logits_bv.masked_fill(&drop_bv, f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_test_support::golden;
    use tokengrid_tokenize::Weights;

    #[test]
    fn golden_cases_equal_to_the_bit() {
        let data = Weights::open(&golden("filtering.safetensors")).unwrap();
        for case in 0..6 {
            let get = |name: &str| data.tensor(&format!("{case}.{name}")).unwrap();
            let (k, p) = (get("k").int64_value(&[]), get("p").double_value(&[]));
            let ours = top_p(top_k(get("in"), k), p);
            assert!(ours.equal(&get("out")), "case {case}: k = {k}, p = {p}");
        }
    }
}
