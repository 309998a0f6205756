//! Parameters as matrices.

use crate::Params;
use crate::kernels::matrix::Matrix;

/// A part of the parameter names, without gradients.
pub(super) struct Values<'a> {
    values: &'a Params,
    prefix: String,
}

impl<'a> Values<'a> {
    /// All of them.
    pub(super) fn new(values: &'a Params) -> Values<'a> {
        Values { values, prefix: String::new() }
    }

    /// Those of block `number` of a stack.
    pub(super) fn block(&self, stack: &str, number: i64) -> Values<'a> {
        Values { prefix: format!("{}{stack}.{number}.", self.prefix), ..*self }
    }

    /// A copy of a parameter: `[rows, columns]`, or a vector as one row.
    pub(super) fn matrix(&self, name: &str) -> Matrix {
        Matrix::copy_of(self.values.get(&format!("{}{name}", self.prefix)))
    }
}
