//! Cross entropy of a head, in two forms.
//!
//! The plain form has the logits of all positions as a tensor: in the product's kind, in fp32, and their gradient once more in
//! both. The chunked form never has them: it takes the head's product and the loss together, some rows at a time. While a chunk's
//! logits are there its gradients are computed as well (softmax minus the target), so that the backward pass needs no logits;
//! what it keeps is as large as the head's input and the head's weight.
//!
//! Shape suffixes: `p` positions, `d` width, `v` vocabulary, `r` rows of a chunk.

use super::block::linear;
use tch::{Kind, Reduction, Tensor};

/// Logits that a chunk has, at most: 32 MB of them in fp32. Products of so many rows fill a GPU.
pub const CHUNK_LOGITS: i64 = 1 << 23;

/// Mean cross entropy of the logits `n W^T`, a scalar in nats: `n [P, D]` in the kind of products, `W [V, D]`, targets int64
/// `[P]`.
pub(super) fn plain(n_pd: &Tensor, head_vd: &Tensor, target_p: &Tensor) -> Tensor {
    let logits_pv = linear(n_pd, head_vd).to_kind(Kind::Float);
    logits_pv.cross_entropy_loss::<Tensor>(target_p, None, Reduction::Mean, -100, 0.0)
}

/// [`plain`] in chunks of at most `chunk_logits` logits. Its value and its gradients with respect to `n` and `W` are those of the
/// plain form but for the order of sums and the roundings of half precision: the gradient of a logit is rounded before it is
/// divided by P, so that it does not vanish in fp16, and sums of chunks are added up in fp32.
pub(super) fn chunked(n_pd: &Tensor, head_vd: &Tensor, target_p: &Tensor, chunk_logits: i64) -> Tensor {
    let sums = tch::no_grad(|| {
        let wants_gradients = n_pd.requires_grad() || head_vd.requires_grad();
        Sums::over_chunks(n_pd, head_vd, target_p, chunk_logits, wants_gradients)
    });
    let num_positions = n_pd.size()[0] as f64;
    let loss = sums.loss / num_positions;
    let Some([dn_pd, dw_vd]) = sums.gradients else { return loss };
    // A number whose gradients are the sums, and which adds nothing to the loss.
    let carrier = (inner_product(n_pd, &dn_pd) + inner_product(head_vd, &dw_vd)) / num_positions;
    loss + (&carrier - carrier.detach())
}

/// Of all positions, not yet divided by their number.
struct Sums {
    /// Cross entropies, a scalar in fp32.
    loss: Tensor,
    /// Gradients with respect to the head's input `[P, D]` and its weight `[V, D]`, fp32.
    gradients: Option<[Tensor; 2]>,
}

impl Sums {
    fn over_chunks(
        n_pd: &Tensor,
        head_vd: &Tensor,
        target_p: &Tensor,
        chunk_logits: i64,
        wants_gradients: bool,
    ) -> Sums {
        let (num_positions, vocab) = (n_pd.size()[0], head_vd.size()[0]);
        let rows = (chunk_logits / vocab).clamp(1, num_positions.max(1));
        let head_vd = head_vd.to_kind(n_pd.kind());
        let wide = (Kind::Float, n_pd.device());
        let mut loss = Tensor::zeros([], wide);
        let mut dn_rd = vec![];
        let mut dw_vd = wants_gradients.then(|| Tensor::zeros(head_vd.size().as_slice(), wide));
        for (n_rd, target_r) in n_pd.split(rows, 0).iter().zip(target_p.split(rows, 0)) {
            let mut logits_rv = n_rd.linear::<Tensor>(&head_vd, None).to_kind(Kind::Float);
            let target_r1 = target_r.unsqueeze(1);
            let log_sum_r1 = logits_rv.logsumexp([1i64].as_slice(), true);
            let _ = loss.g_add_(&(&log_sum_r1 - logits_rv.gather(1, &target_r1, false)).sum(Kind::Float));
            let Some(dw_vd) = &mut dw_vd else { continue };
            // From here on they are the gradient of the logits.
            let _ = logits_rv.g_sub_(&log_sum_r1).exp_();
            let minus_one_r1 = Tensor::full_like(&log_sum_r1, -1.0);
            let dlogits_rv = logits_rv.scatter_add_(1, &target_r1, &minus_one_r1).to_kind(n_pd.kind());
            dn_rd.push(dlogits_rv.matmul(&head_vd).to_kind(Kind::Float));
            let _ = dw_vd.g_add_(&dlogits_rv.tr().matmul(n_rd));
        }
        Sums { loss, gradients: dw_vd.map(|dw_vd| [Tensor::cat(&dn_rd, 0), dw_vd]) }
    }
}

/// `sum(x * dx)` in fp32, with `dx` a constant: its gradient with respect to `x` is `dx`.
fn inner_product(x: &Tensor, dx: &Tensor) -> Tensor {
    x.to_kind(Kind::Float).reshape([-1]).dot(&dx.reshape([-1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Loss and gradients of `n` and `W`, scaled as a step scales them.
    fn with_gradients(form: &dyn Fn(&Tensor, &Tensor) -> Tensor, n_pd: &Tensor, head_vd: &Tensor) -> [Tensor; 3] {
        let [n_pd, head_vd] = [n_pd, head_vd].map(|x| x.detach().copy().set_requires_grad(true));
        let loss = form(&n_pd, &head_vd);
        let mut gradients = Tensor::run_backward(&[&loss * 24.0], &[&n_pd, &head_vd], false, false).into_iter();
        [loss.detach(), gradients.next().unwrap(), gradients.next().unwrap()].map(|x| x.to_kind(Kind::Double))
    }

    /// Largest difference as a share of the largest value.
    fn difference(ours: &Tensor, want: &Tensor) -> f64 {
        (ours - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[])
    }

    /// Input of a head, its weight, and targets; of each kind of token that there is.
    fn inputs(bits: i64, positions: i64, kind: Kind) -> [Tensor; 3] {
        tch::manual_seed(bits);
        let vocab = 1 << bits;
        let options = (Kind::Float, Device::Cpu);
        let n_pd = Tensor::randn([positions, 32], options).to_kind(kind);
        let head_vd = Tensor::randn([vocab, 32], options) * 0.3;
        [n_pd, head_vd, Tensor::randint(vocab, [positions], (Kind::Int64, Device::Cpu))]
    }

    #[test]
    fn loss_and_gradients_are_those_of_the_plain_form() {
        // Half precision: a gradient has a few roundings to 8 and 11 bits.
        for (kind, tolerances) in [
            (Kind::Float, [1e-6, 1e-5, 1e-5]),
            (Kind::BFloat16, [1e-6, 1.6e-2, 1.6e-2]),
            (Kind::Half, [1e-6, 2e-3, 2e-3]),
        ] {
            // The vocabularies of 18 bits in two parts, equal and unequal.
            for bits in [6, 9, 12] {
                let [n_pd, head_vd, target_p] = inputs(bits, 27, kind);
                let want = with_gradients(&|n, w| plain(n, w, &target_p), &n_pd, &head_vd);
                // All at once; 10 rows at a time, of which 7 are left; as many as there are, one by one.
                for chunk_logits in [CHUNK_LOGITS, 10 << bits, 1] {
                    let ours = with_gradients(&|n, w| chunked(n, w, &target_p, chunk_logits), &n_pd, &head_vd);
                    for ((ours, want), tolerance) in ours.iter().zip(&want).zip(tolerances) {
                        let difference = difference(ours, want);
                        assert!(difference <= tolerance, "{kind:?}, {bits} bits, {chunk_logits}: {difference:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn half_precision_is_nearly_as_close_to_the_exact_gradients_as_the_plain_form() {
        for kind in [Kind::BFloat16, Kind::Half] {
            let [n_pd, head_vd, target_p] = inputs(12, 100, kind);
            let exact_head = head_vd.to_kind(kind).to_kind(Kind::Float);
            let exact = with_gradients(&|n, w| plain(n, w, &target_p), &n_pd.to_kind(Kind::Float), &exact_head);
            let error = |form: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
                let ours = with_gradients(form, &n_pd, &head_vd);
                [1, 2].map(|i| (&ours[i] - &exact[i]).norm().double_value(&[]))
            };
            let [plain, chunked] =
                [error(&|n, w| plain(n, w, &target_p)), error(&|n, w| chunked(n, w, &target_p, 32 << 12))];
            // It is rounded twice, once before it is divided by P: the root of 2.
            assert!((0..2).all(|i| chunked[i] <= 1.5 * plain[i]), "{kind:?}: {chunked:?}, plain {plain:?}");
        }
    }

    #[test]
    fn without_gradients_there_is_the_loss_alone() {
        let [n_pd, head_vd, target_p] = inputs(6, 5, Kind::Float);
        let loss = chunked(&n_pd, &head_vd, &target_p, 128);
        assert!(!loss.requires_grad());
        assert!(difference(&loss, &plain(&n_pd, &head_vd, &target_p)) < 1e-6);
    }

    #[test]
    fn a_logit_that_is_not_a_number_makes_a_loss_that_is_none() {
        let [n_pd, head_vd, target_p] = inputs(6, 5, Kind::Float);
        let _ = n_pd.get(3).get(0).fill_(f64::NAN);
        assert!(chunked(&n_pd, &head_vd, &target_p, 128).isnan().int64_value(&[]) == 1);
    }
}
