//! Parameters as matrices.

use crate::Params;
use crate::kernels::matrix::Matrix;

/// A part of the parameter names, without gradients.
pub struct Values<'a> {
    values: &'a Params,
    prefix: String,
}

impl<'a> Values<'a> {
    /// All of them.
    pub fn new(values: &'a Params) -> Values<'a> {
        Values { values, prefix: String::new() }
    }

    /// Those of block `number` of a stack.
    pub fn block(&self, stack: &str, number: i64) -> Values<'a> {
        Values { prefix: format!("{}{stack}.{number}.", self.prefix), ..*self }
    }

    /// A parameter `[rows, columns]`, sharing memory.
    pub fn matrix(&self, name: &str) -> Matrix {
        Matrix::over(self.values.get(&format!("{}{name}", self.prefix)).detach())
    }

    /// A parameter `[columns]`, as a matrix of one row that shares memory.
    pub fn vector(&self, name: &str) -> Matrix {
        Matrix::vector(self.values.get(&format!("{}{name}", self.prefix)))
    }
}
