//! The block over the two sub-tokens of one position, specialised to its sequences of length 2.
//!
//! The sequence is `[h_t, pre_emb(pre_t)]`, causal, with rows 0 and 1 of the rotary table. Row 0 is all zeros and row 1
//! the identity, so attention has a closed form: element 0 sees only itself, and its output is its value v0. Element 1
//! has logits 0 (the key of element 0 vanishes) and q1 k1 / sqrt(hd), hence the output v0 + w (v1 - v0) with
//! w = sigmoid(q1 k1 / sqrt(hd)) a head. No query or key of element 0 is ever needed, and no rotation.
//!
//! Shape suffixes: `p` positions (batch times grid), `h` heads, `d` width.

use super::block::{Dropout, FeedForward, drop, linear, rms_norm};
use super::weights::Scope;
use tch::{Kind, Tensor};

/// One factorized block.
#[derive(Debug)]
pub(super) struct IntraBlock {
    n_head: i64,
    compute: Kind,
    norm: Tensor,
    wqkv: Tensor,
    wv: Tensor,
    wo: Tensor,
    ffn: FeedForward,
}

impl IntraBlock {
    pub(super) fn new(scope: &Scope, n_head: i64, compute: Kind) -> IntraBlock {
        let wqkv = scope.tensor("attention.wqkv.weight");
        let dim = wqkv.size()[1];
        IntraBlock {
            n_head,
            compute,
            norm: scope.tensor("attention_norm.weight"),
            wv: wqkv.narrow(0, 2 * dim, dim),
            wqkv,
            wo: scope.tensor("attention.wo.weight"),
            ffn: FeedForward::new(scope, compute),
        }
    }

    /// Element 0, `x0 [P, D]`: its output, and its value, which element 1 attends to.
    pub(super) fn first(&self, x0_pd: &Tensor, dropout: Dropout) -> (Tensor, Tensor) {
        let v0_pd = linear(&rms_norm(x0_pd, &self.norm, self.compute), &self.wv);
        (self.finish(x0_pd, &v0_pd, dropout), v0_pd)
    }

    /// Element 1, `x1 [P, D]`, given the value of element 0.
    pub(super) fn second(&self, x1_pd: &Tensor, v0_pd: &Tensor, dropout: Dropout) -> Tensor {
        let (p, d) = x1_pd.size2().expect("sub-tokens have two dimensions");
        let qkv = linear(&rms_norm(x1_pd, &self.norm, self.compute), &self.wqkv);
        let heads = |x: Tensor| x.reshape([p, self.n_head, d / self.n_head]);
        let [q1, k1, v1] = [0, 1, 2].map(|i| heads(qkv.narrow(1, i * d, d)));
        let scale = ((d / self.n_head) as f64).sqrt().recip();
        let weight_ph1 =
            ((q1 * k1).sum_dim_intlist([-1i64].as_slice(), true, Kind::Float) * scale).sigmoid().to_kind(self.compute);
        let v0 = heads(v0_pd.shallow_clone());
        let y_phd = &v0 + weight_ph1 * (v1 - &v0);
        self.finish(x1_pd, &y_phd.reshape([p, d]), dropout)
    }

    fn finish(&self, x_pd: &Tensor, y_pd: &Tensor, dropout: Dropout) -> Tensor {
        let x_pd = x_pd + drop(linear(y_pd, &self.wo), dropout.resid);
        self.ffn.add_to(x_pd, dropout.ffn)
    }
}
