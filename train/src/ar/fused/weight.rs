//! Parameters beside their gradients.

use tch::Tensor;
use tokengrid_model::Params;
use tokengrid_model::kernels::matrix::Matrix;

/// A parameter: its value, which the optimizer owns, and the place of its gradient.
#[derive(Debug)]
pub(crate) struct Weight {
    pub value: Matrix,
    pub grad: Matrix,
}

/// A part of the parameter names.
pub(super) struct Weights<'a> {
    values: &'a Params,
    grads: &'a Params,
    prefix: String,
}

impl<'a> Weights<'a> {
    /// All of them.
    ///
    /// # Safety
    /// As long as a [`Weight`] made from it lives, nothing else writes to the values or touches the gradients while it is used;
    /// and what is taken does not overlap: each parameter is requested once, or its rows once.
    pub(super) unsafe fn new(values: &'a Params, grads: &'a Params) -> Weights<'a> {
        Weights { values, grads, prefix: String::new() }
    }

    pub(super) fn block(&self, stack: &str, number: i64) -> Weights<'a> {
        Weights { prefix: format!("{}{stack}.{number}.", self.prefix), ..*self }
    }

    pub(super) fn matrix(&self, name: &str) -> Weight {
        self.weight(name, Tensor::shallow_clone)
    }

    /// A vector as a matrix of one row.
    pub(super) fn vector(&self, name: &str) -> Weight {
        self.weight(name, |tensor| tensor.view([1, -1]))
    }

    /// Rows `from .. from + rows` of a matrix.
    pub(super) fn rows(&self, name: &str, from: i64, rows: i64) -> Weight {
        self.weight(name, |tensor| tensor.narrow(0, from, rows))
    }

    fn weight(&self, name: &str, part: impl Fn(&Tensor) -> Tensor) -> Weight {
        let name = format!("{}{name}", self.prefix);
        // SAFETY: the promise of who made `self`.
        let matrix = |params: &Params| unsafe { Matrix::over(part(&params.get(&name).detach())) };
        Weight { value: matrix(self.values), grad: matrix(self.grads) }
    }
}
