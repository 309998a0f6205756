//! Everything in a training step that is neither a matrix product nor attention, row by row.
//!
//! A kernel reads and writes each value once where libtorch's operations, one after the other, would pass over the same
//! memory many times. Rows are vectors of the model's width unless said otherwise. Each is checked against libtorch's
//! own operations in `tests`.

use crate::kernels::math::{exp, max, multiversion, sigmoid, sum2};

/// Added to the mean of squares before its root is taken, as in the reference's RMSNorm.
const NORM_EPS: f32 = 1e-5;

multiversion! {
    /// Root-mean-square norm of a vector `[D]`: `y = x * inv * weight`; returns `inv`, the reciprocal of the root of the mean of
    /// squares.
    pub fn rms_norm(x: &[f32], weight: &[f32], y: &mut [f32]) -> f32 {
        let inv = 1.0 / (sum2(x, x, |a, b| a * b) / x.len() as f32 + NORM_EPS).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inv * w;
        }
        inv
    }
}

multiversion! {
    /// Backward of [`rms_norm`]: adds to `dx` (which holds the gradient of the residual stream) and to `dweight`.
    pub fn rms_norm_backward(
        dy: &[f32],
        x: &[f32],
        weight: &[f32],
        inv: f32,
        dx: &mut [f32],
        dweight: &mut [f32],
    ) {
        for ((dw, &dy), &x) in dweight.iter_mut().zip(dy).zip(x) {
            *dw += dy * x * inv;
        }
        // Not one sum over three slices: `sum2` takes two, and the product below is needed once more anyway.
        let mut lanes = 0.0;
        for ((dy, x), w) in dy.chunks(256).zip(x.chunks(256)).zip(weight.chunks(256)) {
            let mut product = [0f32; 256];
            for ((p, &dy), &w) in product.iter_mut().zip(dy).zip(w) {
                *p = dy * w;
            }
            lanes += sum2(&product[..x.len()], x, |a, b| a * b);
        }
        let projection = lanes * inv * inv * inv / x.len() as f32;
        for (((dx, &dy), &w), &x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
            *dx += dy * w * inv - x * projection;
        }
    }
}

multiversion! {
    /// Rotates the pairs of `x` `[heads * hd]`, whole heads one after the other, by `cos` and `sin` `[hd / 2]`.
    pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
        for head in x.chunks_exact_mut(2 * cos.len()) {
            for ((pair, &c), &s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * c - b * s;
                pair[1] = b * c + a * s;
            }
        }
    }
}

multiversion! {
    /// Backward of [`rotate`], from `dy` to `dx`.
    pub fn rotate_backward(dy: &[f32], cos: &[f32], sin: &[f32], dx: &mut [f32]) {
        for (dy, dx) in dy.chunks_exact(2 * cos.len()).zip(dx.chunks_exact_mut(2 * cos.len())) {
            for (((dy, dx), &c), &s) in dy.chunks_exact(2).zip(dx.chunks_exact_mut(2)).zip(cos).zip(sin) {
                dx[0] = dy[0] * c + dy[1] * s;
                dx[1] = dy[1] * c - dy[0] * s;
            }
        }
    }
}

multiversion! {
    /// `y = silu(a) * b`, all of one length.
    pub fn gate(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a * sigmoid(a) * b;
        }
    }
}

multiversion! {
    /// Backward of [`gate`]: replaces `a` and `b` by their gradients.
    pub fn gate_backward(dy: &[f32], a: &mut [f32], b: &mut [f32]) {
        for ((&dy, a), b) in dy.iter().zip(a).zip(b) {
            let s = sigmoid(*a);
            let silu = *a * s;
            let da = dy * *b * (s + silu * (1.0 - s));
            *b = dy * silu;
            *a = da;
        }
    }
}

multiversion! {
    /// Cross entropy, in nats, of one row of logits `[V]`, which are replaced by their gradient times `scale`; returns the loss.
    pub fn cross_entropy(logits: &mut [f32], target: usize, scale: f32) -> f32 {
        let max = max(logits);
        let correct = logits[target] - max;
        for x in logits.iter_mut() {
            *x = exp(*x - max);
        }
        let sum = sum2(logits, logits, |a, _| a);
        let factor = scale / sum;
        for x in logits.iter_mut() {
            *x *= factor;
        }
        logits[target] -= scale;
        sum.ln() - correct
    }
}

multiversion! {
    /// The intra block's attention of one head: element 1 mixes both values, `y1 = v0 + w (v1 - v0)` with
    /// `w = sigmoid(scale * q . k)`. Returns `w`.
    pub fn mix(q: &[f32], k: &[f32], v0: &[f32], v1: &[f32], scale: f32, y1: &mut [f32]) -> f32 {
        let w = sigmoid(scale * sum2(q, k, |a, b| a * b));
        for ((y, &v0), &v1) in y1.iter_mut().zip(v0).zip(v1) {
            *y = v0 + w * (v1 - v0);
        }
        w
    }
}

multiversion! {
    /// Backward of [`mix`], where element 0's output is `v0` itself with gradient `dy0`: replaces queries and keys by
    /// their gradients, and both values by theirs.
    pub fn mix_backward(
        dy0: &[f32],
        dy1: &[f32],
        w: f32,
        scale: f32,
        q: &mut [f32],
        k: &mut [f32],
        v0: &mut [f32],
        v1: &mut [f32],
    ) {
        let dw = sum2(dy1, v1, |a, b| a * b) - sum2(dy1, v0, |a, b| a * b);
        let dz = dw * w * (1.0 - w) * scale;
        for (q, k) in q.iter_mut().zip(k) {
            (*q, *k) = (dz * *k, dz * *q);
        }
        for (((v0, v1), &dy0), &dy1) in v0.iter_mut().zip(v1).zip(dy0).zip(dy1) {
            *v0 = dy0 + (1.0 - w) * dy1;
            *v1 = w * dy1;
        }
    }
}

/// Dropout of one tensor: element i is kept or zeroed by a hash of `key` and i, so the backward pass makes the same
/// choice without a stored mask.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    key: u32,
    below: u32,
    keep_scale: f32,
}

impl Mask {
    /// Zeroes a share `rate` in [0, 1) and scales the rest up.
    pub fn new(rate: f64, key: u64) -> Mask {
        let below = (rate * 4_294_967_296.0) as u32;
        Mask { key: (key ^ (key >> 32)) as u32, below, keep_scale: (1.0 / (1.0 - rate)) as f32 }
    }

    #[inline(always)]
    fn factor(self, index: u32) -> f32 {
        let h = index.wrapping_mul(0x9e37_79b1) ^ self.key;
        let h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        let h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        let h = h ^ (h >> 16);
        if h >= self.below { self.keep_scale } else { 0.0 }
    }
}

multiversion! {
    /// `x` times the mask's factors of the elements from `first` on, in place.
    pub fn drop(x: &mut [f32], mask: Mask, first: u32) {
        for (i, x) in x.iter_mut().enumerate() {
            *x *= mask.factor(first.wrapping_add(i as u32));
        }
    }
}

multiversion! {
    /// `sum += x`, both of one length.
    pub fn add(sum: &mut [f32], x: &[f32]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }
}

/// Replaces the first `len` scores by their softmax after scaling, and the others by 0; returns the logarithm of the denominator.
#[inline(always)]
pub fn softmax(scores: &mut [f32], len: usize, scale: f32) -> f32 {
    let (seen, masked) = scores.split_at_mut(len);
    let top = max(seen);
    for score in seen.iter_mut() {
        *score = exp(scale * (*score - top));
    }
    let sum = sum2(seen, seen, |a, _| a);
    let factor = 1.0 / sum;
    for score in seen.iter_mut() {
        *score *= factor;
    }
    masked.fill(0.0);
    scale * top + sum.ln()
}
