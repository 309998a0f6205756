//! Row-major fp32 matrices.

use super::elementwise::{Mask, drop};
use crate::kernels::gemm::{Factor, Output, multiply};
use crate::kernels::threads::{Pieces, for_each, for_rows};
use tch::{Device, Kind, Tensor};

/// Rows a task of a kernel: enough work to be worth a hand-over, few enough to balance.
pub const ROWS: usize = 32;

/// A matrix `[rows, columns]` with memory of its own, or a range of rows of one.
#[derive(Debug)]
pub struct Matrix {
    tensor: Tensor,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

// SAFETY: tasks on other threads read values through a shared handle; operations on the tensor itself are called between
// tasks, by the one thread that runs the step.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// A matrix of zeros.
    pub fn new(rows: usize, columns: usize) -> Matrix {
        Matrix::over(Tensor::zeros([rows as i64, columns as i64], (Kind::Float, Device::Cpu)))
    }

    /// A matrix over a tensor's memory.
    ///
    /// # Panics
    /// When the tensor is not a contiguous fp32 matrix on the CPU.
    pub fn over(tensor: Tensor) -> Matrix {
        assert_eq!((tensor.kind(), tensor.device(), tensor.is_contiguous()), (Kind::Float, Device::Cpu, true));
        let (rows, columns) = tensor.size2().expect("a matrix has two dimensions");
        Matrix { tensor, rows: rows as usize, columns: columns as usize }
    }

    /// A vector as a matrix of one row.
    pub fn vector(tensor: &Tensor) -> Matrix {
        Matrix::over(tensor.detach().view([1, -1]))
    }

    /// Rows `from .. from + rows`, sharing memory.
    pub fn part(&self, from: usize, rows: usize) -> Matrix {
        Matrix::over(self.tensor.narrow(0, from as i64, rows as i64))
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        // SAFETY: contiguous fp32 on the CPU (checked by `over`), alive as long as the tensor; nothing writes while a
        // kernel reads: the step runs one operation after the other.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast(), self.rows * self.columns) }
    }

    /// All values, to be written. Parts of one matrix share memory: a kernel asks for each element once.
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `values`; `&mut self` keeps other views of this handle away, and the kernels of this folder
        // never hold two handles of overlapping parts at once.
        unsafe { std::slice::from_raw_parts_mut(self.tensor.data_ptr().cast(), self.rows * self.columns) }
    }

    /// The values of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.columns..(row + 1) * self.columns]
    }

    fn factor(&self) -> Factor<'_> {
        Factor::new(self.values(), self.rows, self.columns)
    }

    /// `self = x w^T`: a linear layer of weight `w [out, in]`.
    pub fn linear(&mut self, x: &Matrix, w: &Matrix) {
        multiply(x.factor(), w.factor().transposed(), self.values_mut(), Output::Set);
    }

    /// `self = base + x w^T`.
    pub fn linear_plus(&mut self, base: &Matrix, x: &Matrix, w: &Matrix) {
        multiply(x.factor(), w.factor().transposed(), self.values_mut(), Output::Plus(base.values()));
    }

    /// `self = dy w`: the gradient of a linear layer's input.
    pub fn linear_backward(&mut self, dy: &Matrix, w: &Matrix) {
        multiply(dy.factor(), w.factor(), self.values_mut(), Output::Set);
    }

    /// `self += dy w`.
    pub fn add_linear_backward(&mut self, dy: &Matrix, w: &Matrix) {
        multiply(dy.factor(), w.factor(), self.values_mut(), Output::Add);
    }

    /// `self += dy^T x`: the gradient of a linear layer's weight.
    pub fn add_weight_grad(&mut self, dy: &Matrix, x: &Matrix) {
        multiply(dy.factor().transposed(), x.factor(), self.values_mut(), Output::Add);
    }

    /// Work on the rows of this matrix, several at a time: `work(row, its values)`.
    pub fn each_row(&mut self, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let (rows, columns) = (self.rows, self.columns);
        let pieces = Pieces::of(self.values_mut());
        for_rows(rows, ROWS, &|first, count| {
            // SAFETY: `for_rows` hands out disjoint ranges of rows.
            let values = unsafe { pieces.piece(first * columns, count * columns) };
            values.chunks_exact_mut(columns).enumerate().for_each(|(i, row)| work(first + i, row));
        });
    }

    /// Dropout in place.
    pub fn drop(&mut self, mask: Option<Mask>) {
        let Some(mask) = mask else { return };
        let columns = self.columns;
        self.each_row(&|row, values| drop(values, mask, (row * columns) as u32));
    }

    /// Sets all values to 0.
    pub fn fill_zero(&mut self) {
        let _ = self.tensor.zero_();
    }

    /// Takes the values of a matrix of the same size.
    pub fn copy_from(&mut self, other: &Matrix) {
        self.tensor.copy_(&other.tensor);
    }
}

/// Adds up one vector a task of `rows` rows, in the order of the tasks whatever thread ran them.
pub fn sum_over_tasks(rows: usize, sum: &mut [f32], work: &(dyn Fn(usize, usize, &mut [f32]) + Sync)) {
    let (tasks, width) = (rows.div_ceil(ROWS), sum.len());
    let mut parts = vec![0f32; tasks * width];
    let pieces = Pieces::of(&mut parts);
    for_each(tasks, &|task| {
        let first = task * ROWS;
        // SAFETY: one vector a task.
        work(first, ROWS.min(rows - first), unsafe { pieces.piece(task * width, width) });
    });
    parts.chunks_exact(width).for_each(|part| super::elementwise::add(sum, part));
}
