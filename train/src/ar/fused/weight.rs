//! Parameters beside their gradients.

use tokengrid_model::Params;
use tokengrid_model::ar::Values;
use tokengrid_model::kernels::matrix::Matrix;

/// A parameter: its value, which the optimizer owns, and the place of its gradient.
#[derive(Debug)]
pub struct Weight {
    pub value: Matrix,
    pub grad: Matrix,
}

impl Weight {
    /// Rows `from .. from + rows` of both.
    pub fn part(&self, from: usize, rows: usize) -> Weight {
        Weight { value: self.value.part(from, rows), grad: self.grad.part(from, rows) }
    }
}

/// A part of the parameter names, with gradients.
pub struct Weights<'a> {
    values: Values<'a>,
    grads: Values<'a>,
}

impl<'a> Weights<'a> {
    pub fn new(values: &'a Params, grads: &'a Params) -> Weights<'a> {
        Weights { values: Values::new(values), grads: Values::new(grads) }
    }

    pub fn block(&self, stack: &str, number: i64) -> Weights<'a> {
        Weights { values: self.values.block(stack, number), grads: self.grads.block(stack, number) }
    }

    pub fn matrix(&self, name: &str) -> Weight {
        Weight { value: self.values.matrix(name), grad: self.grads.matrix(name) }
    }

    pub fn vector(&self, name: &str) -> Weight {
        Weight { value: self.values.vector(name), grad: self.grads.vector(name) }
    }
}
