//! Row-major fp32 matrices.

use super::elementwise::{Mask, drop};
use crate::kernels::gemm::{Factor, Output, multiply};
use crate::kernels::threads::{Pieces, for_each, for_rows};
use std::marker::PhantomData;
use std::ops::Deref;
use tch::{Device, Kind, Tensor};

/// Rows per task of a kernel: enough work to outweigh the scheduling of a task, few enough to balance.
pub const ROWS: usize = 32;

/// A matrix `[rows, columns]` with its own memory, or a range of rows of one.
#[derive(Debug)]
pub struct Matrix {
    tensor: Tensor,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

// SAFETY: a shared handle only reads, and its maker has promised that nothing writes meanwhile ([`Matrix::over`]); writing
// takes `&mut`.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// A matrix of zeros, `[rows, columns]`.
    pub fn new(rows: usize, columns: usize) -> Matrix {
        let tensor = Tensor::zeros([rows as i64, columns as i64], (Kind::Float, Device::Cpu));
        // SAFETY: no other code has the tensor.
        unsafe { Matrix::over(tensor) }
    }

    /// A copy of a matrix, or of a vector as a matrix of one row; fp32 on the CPU.
    ///
    /// # Panics
    /// When the tensor is neither.
    pub(crate) fn copy_of(tensor: &Tensor) -> Matrix {
        let copy = tensor.detach().contiguous().copy();
        let copy = if copy.dim() == 1 { copy.view([1, -1]) } else { copy };
        // SAFETY: no other code has the copy.
        unsafe { Matrix::over(copy) }
    }

    /// A matrix over a tensor's memory.
    ///
    /// # Safety
    /// As long as the matrix lives, its memory belongs to it as a vector's does: while it is read, nothing writes, and while it
    /// is written, nothing else reads or writes, neither through the tensor, nor through others that share its memory, nor
    /// through another matrix.
    ///
    /// # Panics
    /// When the tensor is not a contiguous fp32 matrix on the CPU.
    pub unsafe fn over(tensor: Tensor) -> Matrix {
        check_layout(&tensor);
        let (rows, columns) = tensor.size2().expect("a matrix has two dimensions");
        Matrix { tensor, rows: rows as usize, columns: columns as usize }
    }

    /// Rows `from .. from + rows`, to be read.
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn part(&self, from: usize, rows: usize) -> Part<'_> {
        let tensor = self.tensor.narrow(0, from as i64, rows as i64);
        // SAFETY: this matrix is borrowed as long as the part lives, so that nothing writes; and the part is only read.
        Part { matrix: unsafe { Matrix::over(tensor) }, _whole: PhantomData }
    }

    /// Rows `from .. from + rows` as a separate matrix, to be written.
    ///
    /// # Safety
    /// As long as the part lives, these rows of this matrix are neither read nor written but through it.
    ///
    /// # Panics
    /// When there are no such rows.
    pub unsafe fn part_mut(&mut self, from: usize, rows: usize) -> Matrix {
        let tensor = self.tensor.narrow(0, from as i64, rows as i64);
        // SAFETY: the caller's promise, and that of who made this matrix.
        unsafe { Matrix::over(tensor) }
    }

    /// All values `[rows * columns]`, row by row.
    pub fn values(&self) -> &[f32] {
        // SAFETY: nothing writes while this matrix is borrowed: the promise of who made it.
        unsafe { numbers(&self.tensor) }
    }

    /// All values `[rows * columns]`, row by row, to be written.
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: nothing else reads or writes while this matrix is borrowed: the promise of who made it.
        unsafe { numbers_mut(&mut self.tensor) }
    }

    /// The values of a row, `[columns]`.
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

    /// `self [M, N] = base [M, N] + x [M, K] w^T`, with `w [N, K]`.
    pub fn linear_plus(&mut self, base: &Matrix, x: &Matrix, w: &Matrix) {
        multiply(x.factor(), w.factor().transposed(), self.values_mut(), Output::AddResidual(base.values()));
    }

    /// `self [M, K] = dy [M, N] w [N, K]`: the gradient of a linear layer's input.
    pub fn linear_backward(&mut self, dy: &Matrix, w: &Matrix) {
        multiply(dy.factor(), w.factor(), self.values_mut(), Output::Set);
    }

    /// `self [M, K] += dy [M, N] w [N, K]`.
    pub fn add_linear_backward(&mut self, dy: &Matrix, w: &Matrix) {
        multiply(dy.factor(), w.factor(), self.values_mut(), Output::Add);
    }

    /// `self [N, K] += dy^T x`, with `dy [M, N]` and `x [M, K]`: the gradient of a linear layer's weight.
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

/// Rows of a matrix, which is borrowed meanwhile.
#[derive(Debug)]
pub struct Part<'a> {
    matrix: Matrix,
    _whole: PhantomData<&'a Matrix>,
}

impl Deref for Part<'_> {
    type Target = Matrix;

    fn deref(&self) -> &Matrix {
        &self.matrix
    }
}

fn check_layout(tensor: &Tensor) {
    assert_eq!((tensor.kind(), tensor.device(), tensor.is_contiguous()), (Kind::Float, Device::Cpu, true));
}

/// The values of a tensor of any shape, row-major.
///
/// # Safety
/// Nothing writes to the tensor's memory as long as they are borrowed.
///
/// # Panics
/// When it is not contiguous fp32 on the CPU.
pub unsafe fn numbers(tensor: &Tensor) -> &[f32] {
    check_layout(tensor);
    // SAFETY: of this kind and layout, and alive as long as the tensor; the caller promises that nothing writes.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The values of a tensor of any shape, row-major, to be written.
///
/// # Safety
/// Nothing else reads or writes the tensor's memory, which other tensors may share, as long as they are borrowed.
///
/// # Panics
/// When it is not contiguous fp32 on the CPU.
pub unsafe fn numbers_mut(tensor: &mut Tensor) -> &mut [f32] {
    check_layout(tensor);
    // SAFETY: as for `numbers`; the caller promises that nothing else looks.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// Adds up one vector per task of `rows` rows, in the order of the tasks, on any thread.
pub fn sum_over_tasks(rows: usize, sum: &mut [f32], work: &(dyn Fn(usize, usize, &mut [f32]) + Sync)) {
    let (tasks, width) = (rows.div_ceil(ROWS), sum.len());
    let mut parts = vec![0f32; tasks * width];
    let pieces = Pieces::of(&mut parts);
    for_each(tasks, &|task| {
        let first = task * ROWS;
        // SAFETY: one vector per task.
        work(first, ROWS.min(rows - first), unsafe { pieces.piece(task * width, width) });
    });
    parts.chunks_exact(width).for_each(|part| super::elementwise::add(sum, part));
}
