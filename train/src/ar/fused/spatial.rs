//! The block over grid positions: rotary attention, then the feed-forward network.

use super::attention::Attention;
use super::ffn::{Ffn, add_projection, dropped};
use super::norm::Norm;
use super::weight::{Weight, Weights};
use tokengrid_model::ar::Rotation;
use tokengrid_model::kernels::elementwise::Mask;
use tokengrid_model::kernels::matrix::Matrix;

/// Batch, positions and heads of a stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub batch: usize,
    pub positions: usize,
    pub heads: usize,
}

/// Dropout of a block's two branches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Masks {
    pub resid: Option<Mask>,
    pub ffn: Option<Mask>,
}

/// One spatial block. Holds what the backward pass needs, its output included.
#[derive(Debug)]
pub(crate) struct Spatial {
    norm: Norm,
    wqkv: Weight,
    wo: Weight,
    ffn: Ffn,
    qkv: Matrix,
    attention: Attention,
    y_pd: Matrix,
    mid_pd: Matrix,
    out_pd: Matrix,
}

impl Spatial {
    pub(super) fn new(weights: &Weights, shape: Shape) -> Spatial {
        let rows = shape.batch * shape.positions;
        let (wqkv, wo) = (weights.matrix("attention.wqkv.weight"), weights.matrix("attention.wo.weight"));
        let d = wo.value.rows;
        Spatial {
            norm: Norm::new(weights, "attention_norm.weight", rows),
            wqkv,
            wo,
            ffn: Ffn::new(weights, rows),
            qkv: Matrix::new(rows, 3 * d),
            attention: Attention::new(shape),
            y_pd: Matrix::new(rows, d),
            mid_pd: Matrix::new(rows, d),
            out_pd: Matrix::new(rows, d),
        }
    }

    /// What [`Spatial::forward`] made.
    pub(super) fn output(&self) -> &Matrix {
        &self.out_pd
    }

    /// `x [P, D]` through the block.
    pub(super) fn forward(&mut self, x_pd: &Matrix, rotation: &Rotation, masks: Masks) {
        self.qkv.linear(self.norm.forward(x_pd), &self.wqkv.value);
        self.attention.forward(&self.qkv, rotation, &mut self.y_pd);
        add_projection(x_pd, &self.y_pd, &self.wo, &mut self.mid_pd, masks.resid);
        self.ffn.forward(&self.mid_pd, &mut self.out_pd, masks.ffn);
    }

    /// `dx`: the gradient of the output, replaced by that of the input `x`.
    pub(super) fn backward(
        &mut self,
        x_pd: &Matrix,
        dx_pd: &mut Matrix,
        scratch_pd: &mut Matrix,
        rotation: &Rotation,
        masks: Masks,
    ) {
        self.ffn.backward(&self.mid_pd, dx_pd, scratch_pd, masks.ffn);
        let dprojected_pd = dropped(dx_pd, scratch_pd, masks.resid);
        self.wo.grad.add_weight_grad(dprojected_pd, &self.y_pd);
        self.y_pd.linear_backward(dprojected_pd, &self.wo.value);
        self.attention.backward(&mut self.qkv, rotation, &self.y_pd);
        self.wqkv.grad.add_weight_grad(&self.qkv, self.norm.output());
        self.norm.output_mut().linear_backward(&self.qkv, &self.wqkv.value);
        self.norm.backward(x_pd, dx_pd);
    }
}
