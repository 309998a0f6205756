//! The Llama-style block over grid positions.
//!
//! Shape suffixes: `b` batch, `t` positions, `h` heads, `d` width (of the model or of a head).

use super::rope::rotate;
use super::weights::Scope;
use tch::{Kind, Tensor};

/// Epsilon of RMSNorm, as in the reference's `GPT`.
const NORM_EPS: f64 = 1e-5;

/// Root-mean-square norm over the last dimension, statistics in fp32; the result has the kind `compute`.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, compute: Kind) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let scale = (wide.square().mean_dim([-1i64].as_slice(), true, Kind::Float) + NORM_EPS).rsqrt();
    (wide * scale).to_kind(compute) * weight.to_kind(compute)
}

/// `x W^T` in x's kind; master weights of a wider kind are rounded for the product.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    x.linear::<Tensor>(&weight.to_kind(x.kind()), None)
}

/// Dropout rates of a block; all 0 outside training.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dropout {
    /// After attention.
    pub resid: f64,
    /// After the feed-forward network.
    pub ffn: f64,
}

/// `x` with a share of its elements zeroed; a rate of 0 touches neither x nor the generator.
pub(super) fn drop(x: Tensor, rate: f64) -> Tensor {
    if rate > 0.0 { x.dropout(rate, true) } else { x }
}

/// Attention with rotary embedding, then the gated feed-forward network, each on the normed residual stream.
#[derive(Debug)]
pub(super) struct Block {
    n_head: i64,
    compute: Kind,
    attention_norm: Tensor,
    wqkv: Tensor,
    wo: Tensor,
    ffn: FeedForward,
}

impl Block {
    pub(super) fn new(scope: &Scope, n_head: i64, compute: Kind) -> Block {
        Block {
            n_head,
            compute,
            attention_norm: scope.tensor("attention_norm.weight"),
            wqkv: scope.tensor("attention.wqkv.weight"),
            wo: scope.tensor("attention.wo.weight"),
            ffn: FeedForward::new(scope, compute),
        }
    }

    /// `x [B, T, D]`, `factors` of its T positions: causal attention within the sequence.
    pub(super) fn forward(&self, x_btd: &Tensor, factors: &Tensor, dropout: Dropout) -> Tensor {
        let [q, k, v] = self.qkv(x_btd, factors);
        let y = Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, true, None, false);
        self.finish(x_btd, &y, dropout)
    }

    /// One position `x [B, 1, D]` given the keys and values of the positions before it: `keys` and `values`
    /// `[B, H, N, hd]` are caches in which position `at` is filled in.
    pub(super) fn step(&self, x_btd: &Tensor, factors: &Tensor, keys: &Tensor, values: &Tensor, at: i64) -> Tensor {
        let [q, k, v] = self.qkv(x_btd, factors);
        keys.narrow(2, at, 1).copy_(&k);
        values.narrow(2, at, 1).copy_(&v);
        let (keys, values) = (keys.narrow(2, 0, at + 1), values.narrow(2, 0, at + 1));
        let y = Tensor::scaled_dot_product_attention::<Tensor>(&q, &keys, &values, None, 0.0, false, None, false);
        self.finish(x_btd, &y, Dropout::default())
    }

    /// [`Block::step`] at the position that `at`, int64 `[1]`, holds: the caches take part as a whole, and `is_seen`, bool
    /// `[1, 1, 1, N]`, says which positions count.
    pub(super) fn step_at(
        &self,
        x_btd: &Tensor,
        factors: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        at: &Tensor,
        is_seen: &Tensor,
    ) -> Tensor {
        let [q, k, v] = self.qkv(x_btd, factors);
        let _ = keys.shallow_clone().index_copy_(2, at, &k);
        let _ = values.shallow_clone().index_copy_(2, at, &v);
        let y = Tensor::scaled_dot_product_attention(&q, keys, values, Some(is_seen), 0.0, false, None, false);
        self.finish(x_btd, &y, Dropout::default())
    }

    /// Queries, keys and values `[B, H, T, hd]`, rotated.
    fn qkv(&self, x_btd: &Tensor, factors: &Tensor) -> [Tensor; 3] {
        let (b, t, d) = x_btd.size3().expect("the residual stream has three dimensions");
        let qkv = linear(&rms_norm(x_btd, &self.attention_norm, self.compute), &self.wqkv);
        let heads = |i: i64| qkv.narrow(2, i * d, d).view([b, t, self.n_head, d / self.n_head]);
        [rotate(&heads(0), factors), rotate(&heads(1), factors), heads(2)].map(|x_bthd| x_bthd.transpose(1, 2))
    }

    fn finish(&self, x_btd: &Tensor, y_bhtd: &Tensor, dropout: Dropout) -> Tensor {
        let y_btd = y_bhtd.transpose(1, 2).reshape(x_btd.size().as_slice());
        let x_btd = x_btd + drop(linear(&y_btd, &self.wo), dropout.resid);
        self.ffn.add_to(x_btd, dropout.ffn)
    }
}

/// `w2(silu(w1 x) * w3 x)` on the normed input, added to it.
#[derive(Debug)]
pub(super) struct FeedForward {
    compute: Kind,
    norm: Tensor,
    w1: Tensor,
    w2: Tensor,
    w3: Tensor,
}

impl FeedForward {
    pub(super) fn new(scope: &Scope, compute: Kind) -> FeedForward {
        FeedForward {
            compute,
            norm: scope.tensor("ffn_norm.weight"),
            w1: scope.tensor("feed_forward.w1.weight"),
            w2: scope.tensor("feed_forward.w2.weight"),
            w3: scope.tensor("feed_forward.w3.weight"),
        }
    }

    pub(super) fn add_to(&self, x: Tensor, rate: f64) -> Tensor {
        let y = rms_norm(&x, &self.norm, self.compute);
        let gated = linear(&y, &self.w1).silu() * linear(&y, &self.w3);
        x + drop(linear(&gated, &self.w2), rate)
    }
}
