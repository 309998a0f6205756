//! The block over grid positions: rotary attention, then the feed-forward network.

use super::ffn::{Ffn, add_projection, dropped};
use super::kernels::{Mask, rotate, rotate_backward};
use super::matrix::{Matrix, ROWS};
use super::norm::Norm;
use super::weight::{Weight, Weights};
use crate::TrainError;
use crate::cpu::threads::{Pieces, for_rows};
use tch::Tensor;

/// Batch, positions and heads of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub batch: usize,
    pub positions: usize,
    pub heads: usize,
}

/// Cosines and sines `[T, head_dim / 2]` of the positions.
#[derive(Debug)]
pub struct Rotation {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    pub pairs: usize,
}

impl Rotation {
    fn of(&self, position: usize) -> (&[f32], &[f32]) {
        let place = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[place.clone()], &self.sin[place])
    }
}

/// Dropout of a block's two branches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Masks {
    pub resid: Option<Mask>,
    pub ffn: Option<Mask>,
}

/// One spatial block. Holds what the backward pass needs, its output included.
#[derive(Debug)]
pub struct Spatial {
    shape: Shape,
    norm: Norm,
    wqkv: Weight,
    wo: Weight,
    ffn: Ffn,
    qkv: Matrix,
    attended: Option<Attended>,
    mid_pd: Matrix,
    out_pd: Matrix,
}

/// What libtorch's attention returns: outputs `[B, H, T, hd]` and the logarithms of the softmax's denominators.
#[derive(Debug)]
struct Attended {
    y_bhtd: Tensor,
    log_sum_exp: Tensor,
}

impl Spatial {
    pub fn new(weights: &Weights, shape: Shape) -> Spatial {
        let rows = shape.batch * shape.positions;
        let (wqkv, wo) = (weights.matrix("attention.wqkv.weight"), weights.matrix("attention.wo.weight"));
        let d = wo.value.rows;
        Spatial {
            shape,
            norm: Norm::new(weights, "attention_norm.weight", rows),
            wqkv,
            wo,
            ffn: Ffn::new(weights, rows),
            qkv: Matrix::new(rows, 3 * d),
            attended: None,
            mid_pd: Matrix::new(rows, d),
            out_pd: Matrix::new(rows, d),
        }
    }

    /// What [`Spatial::forward`] made.
    pub fn output(&self) -> &Matrix {
        &self.out_pd
    }

    /// `x [P, D]` through the block.
    pub fn forward(&mut self, x_pd: &Matrix, rotation: &Rotation, masks: Masks) -> Result<(), TrainError> {
        self.qkv.linear(self.norm.forward(x_pd), &self.wqkv.value);
        let (d, positions) = (x_pd.columns, self.shape.positions);
        self.qkv.each_row(&|row, qkv| {
            let (cos, sin) = rotation.of(row % positions);
            rotate(&mut qkv[..2 * d], cos, sin);
        });
        let [q, k, v] = self.heads();
        let (y_bhtd, log_sum_exp) =
            Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu::<Tensor>(&q, &k, &v, 0.0, true, None, None)?;
        let y_pd = merged(&y_bhtd);
        self.attended = Some(Attended { y_bhtd, log_sum_exp });
        add_projection(x_pd, &y_pd, &self.wo, &mut self.mid_pd, masks.resid);
        self.ffn.forward(&self.mid_pd, &mut self.out_pd, masks.ffn);
        Ok(())
    }

    /// `dx`: the gradient of the output, replaced by that of the input `x`.
    pub fn backward(
        &mut self,
        x_pd: &Matrix,
        dx_pd: &mut Matrix,
        scratch_pd: &mut Matrix,
        rotation: &Rotation,
        masks: Masks,
    ) -> Result<(), TrainError> {
        self.ffn.backward(&self.mid_pd, dx_pd, scratch_pd, masks.ffn);
        let attended = self.attended.take().expect("forward comes before backward");
        let mut dy_pd = Matrix::new(x_pd.rows, x_pd.columns);
        {
            let dprojected_pd = dropped(dx_pd, scratch_pd, masks.resid);
            self.wo.grad.add_weight_grad(dprojected_pd, &merged(&attended.y_bhtd));
            dy_pd.linear_backward(dprojected_pd, &self.wo.value);
        }
        let dy_bhtd = self.split(dy_pd.tensor());
        let [q, k, v] = self.heads();
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward::<Tensor>(
            &dy_bhtd,
            &q,
            &k,
            &v,
            &attended.y_bhtd,
            &attended.log_sum_exp,
            0.0,
            true,
            None,
            None,
        )?;
        self.join_gradients(&[dq, dk, dv].map(|gradient| merged(&gradient)), rotation);
        self.wqkv.grad.add_weight_grad(&self.qkv, self.norm.output());
        self.norm.output_mut().linear_backward(&self.qkv, &self.wqkv.value);
        self.norm.backward(x_pd, dx_pd);
        Ok(())
    }

    /// Replaces queries, keys and values by their gradients, through the rotation.
    fn join_gradients(&mut self, gradients: &[Matrix; 3], rotation: &Rotation) {
        let [dq, dk, dv] = gradients;
        let (d, positions) = (dq.columns, self.shape.positions);
        let rows = self.qkv.rows;
        let qkv = Pieces::of(self.qkv.values_mut());
        for_rows(rows, ROWS, &|first, count| {
            for row in first..first + count {
                // SAFETY: `for_rows` hands out disjoint ranges of rows.
                let qkv = unsafe { qkv.piece(row * 3 * d, 3 * d) };
                let (cos, sin) = rotation.of(row % positions);
                rotate_backward(dq.row(row), cos, sin, &mut qkv[..d]);
                rotate_backward(dk.row(row), cos, sin, &mut qkv[d..2 * d]);
                qkv[2 * d..].copy_from_slice(dv.row(row));
            }
        });
    }

    /// Queries, keys and values `[B, H, T, hd]`, views of one buffer.
    fn heads(&self) -> [Tensor; 3] {
        let Shape { batch, positions, heads } = self.shape;
        let shape = [batch as i64, positions as i64, 3, heads as i64, -1];
        let parts = self.qkv.tensor().view(shape);
        [0, 1, 2].map(|part| parts.select(2, part).transpose(1, 2))
    }

    /// `[P, D]` to `[B, H, T, hd]`.
    fn split(&self, x_pd: &Tensor) -> Tensor {
        let Shape { batch, positions, heads } = self.shape;
        x_pd.view([batch as i64, positions as i64, heads as i64, -1]).transpose(1, 2)
    }
}

/// `[B, H, T, hd]` to `[P, D]`: no copy, as libtorch keeps the positions outside of the heads.
fn merged(x_bhtd: &Tensor) -> Matrix {
    let (b, h, t, d) = x_bhtd.size4().expect("attention has four dimensions");
    Matrix::over(x_bhtd.transpose(1, 2).contiguous().view([b * t, h * d]))
}
