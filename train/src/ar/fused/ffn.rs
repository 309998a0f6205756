//! `x + w2(silu(w1 n) * w3 n)` with `n` the normed `x`, and back.

use super::norm::Norm;
use super::weight::{Weight, Weights};
use tokengrid_model::kernels::elementwise::{Mask, add, gate, gate_backward};
use tokengrid_model::kernels::matrix::{Matrix, ROWS};
use tokengrid_model::kernels::threads::{Pieces, for_rows};

/// The gated feed-forward network of a block over `rows` vectors. Holds what the backward pass needs.
#[derive(Debug)]
pub(crate) struct Ffn {
    norm: Norm,
    w1: Weight,
    w2: Weight,
    w3: Weight,
    a_pf: Matrix,
    b_pf: Matrix,
    gated_pf: Matrix,
}

impl Ffn {
    pub(super) fn new(weights: &Weights, rows: usize) -> Ffn {
        let [w1, w2, w3] = ["w1", "w2", "w3"].map(|name| weights.matrix(&format!("feed_forward.{name}.weight")));
        let inner = w1.value.rows;
        let [a_pf, b_pf, gated_pf] = [(); 3].map(|()| Matrix::new(rows, inner));
        Ffn { norm: Norm::new(weights, "ffn_norm.weight", rows), w1, w2, w3, a_pf, b_pf, gated_pf }
    }

    /// `x [P, D]` to `out [P, D]`.
    pub(super) fn forward(&mut self, x_pd: &Matrix, out_pd: &mut Matrix, mask: Option<Mask>) {
        let n_pd = self.norm.forward(x_pd);
        self.a_pf.linear(n_pd, &self.w1.value);
        self.b_pf.linear(n_pd, &self.w3.value);
        let (a, b, width) = (self.a_pf.values(), self.b_pf.values(), self.w1.value.rows);
        self.gated_pf.each_row(&|row, gated| {
            let place = row * width..(row + 1) * width;
            gate(&a[place.clone()], &b[place], gated);
        });
        add_projection(x_pd, &self.gated_pf, &self.w2, out_pd, mask);
    }

    /// `dx [P, D]`: the gradient of the output, replaced by that of the input `x`.
    pub(super) fn backward(&mut self, x_pd: &Matrix, dx_pd: &mut Matrix, scratch_pd: &mut Matrix, mask: Option<Mask>) {
        let dy_pd = dropped(dx_pd, scratch_pd, mask);
        self.w2.grad.add_weight_grad(dy_pd, &self.gated_pf);
        self.gated_pf.linear_backward(dy_pd, &self.w2.value);
        let width = self.w1.value.rows;
        let (rows, dgated) = (self.gated_pf.rows, self.gated_pf.values());
        let (a, b) = (Pieces::of(self.a_pf.values_mut()), Pieces::of(self.b_pf.values_mut()));
        for_rows(rows, ROWS, &|first, count| {
            let (from, len) = (first * width, count * width);
            // SAFETY: `for_rows` hands out disjoint ranges of rows.
            let (a, b) = unsafe { (a.piece(from, len), b.piece(from, len)) };
            gate_backward(&dgated[from..from + len], a, b);
        });
        let n_pd = self.norm.output();
        self.w1.grad.add_weight_grad(&self.a_pf, n_pd);
        self.w3.grad.add_weight_grad(&self.b_pf, n_pd);
        let dn_pd = self.norm.output_mut();
        dn_pd.linear_backward(&self.a_pf, &self.w1.value);
        dn_pd.add_linear_backward(&self.b_pf, &self.w3.value);
        self.norm.backward(x_pd, dx_pd);
    }
}

/// `out = x + dropout(y w^T)`: how attention and feed-forward network join the residual stream.
pub(crate) fn add_projection(x_pd: &Matrix, y_pf: &Matrix, w: &Weight, out_pd: &mut Matrix, mask: Option<Mask>) {
    if mask.is_none() {
        out_pd.linear_plus(x_pd, y_pf, &w.value);
        return;
    }
    out_pd.linear(y_pf, &w.value);
    out_pd.drop(mask);
    out_pd.each_row(&|row, out| add(out, x_pd.row(row)));
}

/// The gradient that passes the dropout: `dx` itself where there is none, else masked into `scratch`.
pub(super) fn dropped<'a>(dx_pd: &'a Matrix, scratch_pd: &'a mut Matrix, mask: Option<Mask>) -> &'a Matrix {
    if mask.is_none() {
        return dx_pd;
    }
    scratch_pd.copy_from(dx_pd);
    scratch_pd.drop(mask);
    scratch_pd
}
