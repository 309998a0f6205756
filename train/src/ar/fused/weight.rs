//! Parameters beside their gradients.

use super::matrix::Matrix;
use tokengrid_tokenize::Params;

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

/// A part of the parameter names.
pub struct Weights<'a> {
    values: &'a Params,
    grads: &'a Params,
    prefix: String,
}

impl<'a> Weights<'a> {
    pub fn new(values: &'a Params, grads: &'a Params) -> Weights<'a> {
        Weights { values, grads, prefix: String::new() }
    }

    pub fn block(&self, stack: &str, number: i64) -> Weights<'a> {
        Weights { prefix: format!("{}{stack}.{number}.", self.prefix), ..*self }
    }

    pub fn matrix(&self, name: &str) -> Weight {
        let name = format!("{}{name}", self.prefix);
        let of = |params: &Params| Matrix::over(params.get(&name).detach());
        Weight { value: of(self.values), grad: of(self.grads) }
    }

    pub fn vector(&self, name: &str) -> Weight {
        let name = format!("{}{name}", self.prefix);
        let of = |params: &Params| Matrix::vector(params.get(&name));
        Weight { value: of(self.values), grad: of(self.grads) }
    }
}
