//! Root-mean-square norm over the rows of a matrix, and back.

use super::weight::{Weight, Weights};
use tokengrid_model::kernels::elementwise::{rms_norm, rms_norm_backward};
use tokengrid_model::kernels::matrix::{Matrix, ROWS, sum_over_tasks};
use tokengrid_model::kernels::threads::{Pieces, for_rows};

/// A norm of `rows` vectors. Its output lives here, where the backward pass puts the output's gradient as well.
#[derive(Debug)]
pub(crate) struct Norm {
    weight: Weight,
    inv_p: Vec<f32>,
    n_pd: Matrix,
}

impl Norm {
    pub(super) fn new(weights: &Weights, name: &str, rows: usize) -> Norm {
        let weight = weights.vector(name);
        Norm { n_pd: Matrix::new(rows, weight.value.columns), inv_p: vec![0.0; rows], weight }
    }

    /// Norms `x [P, D]`.
    pub(super) fn forward(&mut self, x_pd: &Matrix) -> &Matrix {
        let (rows, columns) = (x_pd.rows, x_pd.columns);
        let (n, inv, weight) =
            (Pieces::of(self.n_pd.values_mut()), Pieces::of(&mut self.inv_p), self.weight.value.values());
        for_rows(rows, ROWS, &|first, count| {
            // SAFETY: `for_rows` hands out disjoint ranges of rows.
            let (n, inv) = unsafe { (n.piece(first * columns, count * columns), inv.piece(first, count)) };
            for (i, (n, inv)) in n.chunks_exact_mut(columns).zip(inv).enumerate() {
                *inv = rms_norm(x_pd.row(first + i), weight, n);
            }
        });
        &self.n_pd
    }

    /// What [`Norm::forward`] made.
    pub(super) fn output(&self) -> &Matrix {
        &self.n_pd
    }

    /// Storage of the gradient of the output, once the output itself is no longer needed.
    pub(crate) fn output_mut(&mut self) -> &mut Matrix {
        &mut self.n_pd
    }

    /// Adds the input's gradient to `dx`, given the output's in [`Norm::output_mut`].
    pub(super) fn backward(&mut self, x_pd: &Matrix, dx_pd: &mut Matrix) {
        let (rows, columns) = (x_pd.rows, x_pd.columns);
        let (dn_pd, inv, weight) = (&self.n_pd, &self.inv_p, self.weight.value.values());
        let dx = Pieces::of(dx_pd.values_mut());
        sum_over_tasks(rows, self.weight.grad.values_mut(), &|first, count, dweight| {
            // SAFETY: tasks have disjoint ranges of rows.
            let dx = unsafe { dx.piece(first * columns, count * columns) };
            for (i, dx) in dx.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                rms_norm_backward(dn_pd.row(row), x_pd.row(row), weight, inv[row], dx, dweight);
            }
        });
    }
}
