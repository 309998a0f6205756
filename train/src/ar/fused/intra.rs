//! The block over the two sub-tokens of a position, whose attention has a closed form: see [`super::super::intra`].
//!
//! Both elements of all positions lie in one matrix `[2P, D]`, first the elements 0 and then the elements 1, so that
//! projection and feed-forward network are one product for both. Queries and keys are needed of element 1 alone.

use super::ffn::{Ffn, add_projection, dropped};
use super::norm::Norm;
use super::spatial::Masks;
use super::weight::{Weight, Weights};
use tokengrid_model::kernels::elementwise::{mix, mix_backward};
use tokengrid_model::kernels::matrix::{Matrix, ROWS};
use tokengrid_model::kernels::threads::{Pieces, for_rows};

/// Queries, keys and values in one matrix `[3D, D]`.
const WQKV: &str = "attention.wqkv.weight";

/// One factorized block. Holds what the backward pass needs, its output included.
#[derive(Debug)]
pub(crate) struct Intra {
    positions: usize,
    heads: usize,
    norm: Norm,
    wqk: Weight,
    wv: Weight,
    wo: Weight,
    ffn: Ffn,
    qk: Matrix,
    v_pd: Matrix,
    y_pd: Matrix,
    /// Weight of element 1's own value, `[P, H]`.
    w_ph: Matrix,
    mid_pd: Matrix,
    out_pd: Matrix,
}

impl Intra {
    /// `positions`: of all images of a batch together.
    pub(super) fn new(weights: &Weights, positions: usize, heads: usize) -> Intra {
        let wo = weights.matrix("attention.wo.weight");
        let (d, rows) = (wo.value.rows, 2 * positions);
        let [v_pd, y_pd, mid_pd, out_pd] = [(); 4].map(|()| Matrix::new(rows, d));
        Intra {
            positions,
            heads,
            norm: Norm::new(weights, "attention_norm.weight", rows),
            wqk: weights.rows(WQKV, 0, 2 * d as i64),
            wv: weights.rows(WQKV, 2 * d as i64, d as i64),
            wo,
            ffn: Ffn::new(weights, rows),
            qk: Matrix::new(positions, 2 * d),
            v_pd,
            y_pd,
            w_ph: Matrix::new(positions, heads),
            mid_pd,
            out_pd,
        }
    }

    /// What [`Intra::forward`] made.
    pub(super) fn output(&self) -> &Matrix {
        &self.out_pd
    }

    /// `x [2P, D]` through the block.
    pub(super) fn forward(&mut self, x_pd: &Matrix, masks: Masks) {
        let n_pd = self.norm.forward(x_pd);
        self.v_pd.linear(n_pd, &self.wv.value);
        self.qk.linear(&n_pd.part(self.positions, self.positions), &self.wqk.value);
        self.attend();
        add_projection(x_pd, &self.y_pd, &self.wo, &mut self.mid_pd, masks.resid);
        self.ffn.forward(&self.mid_pd, &mut self.out_pd, masks.ffn);
    }

    fn attend(&mut self) {
        let (p, d, heads) = (self.positions, self.v_pd.columns, self.heads);
        let (hd, scale) = (d / heads, ((d / heads) as f32).sqrt().recip());
        let (v, qk) = (&self.v_pd, &self.qk);
        let (y, w) = (Pieces::of(self.y_pd.values_mut()), Pieces::of(self.w_ph.values_mut()));
        for_rows(p, ROWS, &|first, count| {
            for row in first..first + count {
                // SAFETY: `for_rows` hands out disjoint ranges, and element 1 lies P rows behind element 0.
                let (y0, y1, w) =
                    unsafe { (y.piece(row * d, d), y.piece((p + row) * d, d), w.piece(row * heads, heads)) };
                y0.copy_from_slice(v.row(row));
                let (q, k) = qk.row(row).split_at(d);
                for (head, w) in w.iter_mut().enumerate() {
                    let at = head * hd..(head + 1) * hd;
                    let (v0, v1) = (&v.row(row)[at.clone()], &v.row(p + row)[at.clone()]);
                    *w = mix(&q[at.clone()], &k[at.clone()], v0, v1, scale, &mut y1[at]);
                }
            }
        });
    }

    /// `dx [2P, D]`: the gradient of the output, replaced by that of the input `x`.
    pub(super) fn backward(&mut self, x_pd: &Matrix, dx_pd: &mut Matrix, scratch_pd: &mut Matrix, masks: Masks) {
        self.ffn.backward(&self.mid_pd, dx_pd, scratch_pd, masks.ffn);
        let dprojected_pd = dropped(dx_pd, scratch_pd, masks.resid);
        self.wo.grad.add_weight_grad(dprojected_pd, &self.y_pd);
        self.y_pd.linear_backward(dprojected_pd, &self.wo.value);
        self.attend_backward();
        let n_pd = self.norm.output();
        self.wv.grad.add_weight_grad(&self.v_pd, n_pd);
        self.wqk.grad.add_weight_grad(&self.qk, &n_pd.part(self.positions, self.positions));
        let dn_pd = self.norm.output_mut();
        dn_pd.linear_backward(&self.v_pd, &self.wv.value);
        // SAFETY: `dn_pd` is not touched before the part is gone.
        let mut second_pd = unsafe { dn_pd.part_mut(self.positions, self.positions) };
        second_pd.add_linear_backward(&self.qk, &self.wqk.value);
        drop(second_pd);
        self.norm.backward(x_pd, dx_pd);
    }

    /// Replaces queries, keys and values by their gradients.
    fn attend_backward(&mut self) {
        let (p, d, heads) = (self.positions, self.v_pd.columns, self.heads);
        let (hd, scale) = (d / heads, ((d / heads) as f32).sqrt().recip());
        let (dy, w) = (&self.y_pd, &self.w_ph);
        let (v, qk) = (Pieces::of(self.v_pd.values_mut()), Pieces::of(self.qk.values_mut()));
        for_rows(p, ROWS, &|first, count| {
            for row in first..first + count {
                // SAFETY: `for_rows` hands out disjoint ranges, and element 1 lies P rows behind element 0.
                let (v0, v1, qk) =
                    unsafe { (v.piece(row * d, d), v.piece((p + row) * d, d), qk.piece(row * 2 * d, 2 * d)) };
                let (q, k) = qk.split_at_mut(d);
                for head in 0..heads {
                    let at = head * hd..(head + 1) * hd;
                    mix_backward(
                        &dy.row(row)[at.clone()],
                        &dy.row(p + row)[at.clone()],
                        w.row(row)[head],
                        scale,
                        &mut q[at.clone()],
                        &mut k[at.clone()],
                        &mut v0[at.clone()],
                        &mut v1[at],
                    );
                }
            }
        });
    }
}
