//! Products of matrices in fp32, on libtorch's threads.
//!
//! `c = a b` for `a [M, K]` and `b [K, N]`, either of which may lie transposed in memory. Slices of K are packed: `b` into panels
//! of 32 columns by all threads together, `a` into strips of as many rows as the registers hold, by the thread that
//! needs them. Each element of `c` is a sum over k in ascending order, slice by slice, with fused multiplication: its bits do
//! not depend on the number of threads or the width of the vectors.

pub use super::panels::Factor;
use super::panels::{Slice, copy, pack_panel};
use super::threads::{Pieces, for_each};
use super::tile::{OutputTile, PANEL, ROWS_MAX, Store, Strip, tile};
use crate::kernels::simd::{Kernel, Level, Simd};
use std::cell::Cell;

/// Most of k that is multiplied at once: a panel then stays in the second-level cache.
const DEPTH: usize = 512;
/// Strips of rows that a task takes at most: a task's part of `a` then stays in the second-level cache.
const STRIPS: usize = 12;

/// Rows this many floats apart lie in the same few lines of the first-level cache.
const CONFLICT: usize = 256;
/// Floats from row to row of a packed strip of rows; no power of two, which would put all rows into the same cache lines.
const ROW_STRIDE: usize = DEPTH + 16;
/// Floats from k to k of a packed strip of columns.
const COLUMN_STRIDE: usize = 16;

/// Most floats of a packed strip.
const STRIP: usize =
    if ROWS_MAX * ROW_STRIDE > COLUMN_STRIDE * DEPTH { ROWS_MAX * ROW_STRIDE } else { COLUMN_STRIDE * DEPTH };

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// It replaces what was there.
    Set,
    /// It is added to what was there.
    Add,
    /// It replaces what was there, with this matrix of the same shape added.
    AddResidual(&'a [f32]),
}

/// `c [M, N]` from `a [M, K]` and `b [K, N]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn multiply(a: Factor, b: Factor, c: &mut [f32], output: Output) {
    multiply_at(Level::best(), a, b, c, output);
}

thread_local! {
    /// Panels of `b`, of the thread that calls.
    static PANELS: Cell<Vec<f32>> = const { Cell::new(vec![]) };
    /// Strips of `a`, of each thread.
    static STRIPS_OF_A: Cell<Vec<f32>> = const { Cell::new(vec![]) };
}

fn multiply_at(level: Level, a: Factor, b: Factor, c: &mut [f32], output: Output) {
    let ((m, k), (k_of_b, n)) = (a.shape(), b.shape());
    assert!(k == k_of_b && c.len() == m * n, "{m} x {k} by {k_of_b} x {n} into {} values", c.len());
    if let Output::AddResidual(base) = output {
        assert_eq!(base.len(), c.len(), "what is added has the product's shape");
    }
    let mut panels = PANELS.take();
    let depth = k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1);
    for start in (0..k.max(1)).step_by(depth) {
        let slice = Slice { start, depth: depth.min(k - start) };
        panels.resize(n.div_ceil(PANEL) * PANEL * slice.depth, 0.0);
        pack_panels(&b, slice, &mut panels);
        let output = if start == 0 { output } else { Output::Add };
        add_slice(level, &a, slice, &panels, &Pieces::of(c), n, output);
    }
    PANELS.set(panels);
}

/// `b`'s slice as panels `[N / PANEL, rounded up, depth, PANEL]`; missing columns are 0.
fn pack_panels(b: &Factor, slice: Slice, panels: &mut [f32]) {
    let size = slice.depth * PANEL;
    let pieces = Pieces::of(panels);
    for_each(b.shape().1.div_ceil(PANEL), &|panel| {
        // SAFETY: a task has its own panel.
        pack_panel(b, slice, panel * PANEL, unsafe { pieces.piece(panel * size, size) });
    });
}

/// The product of one slice of k, cut into tasks of whole strips.
fn add_slice(level: Level, a: &Factor, slice: Slice, panels: &[f32], c: &Pieces<f32>, n: usize, output: Output) {
    let (m, rows) = (a.shape().0, rows_of(level));
    let strips = m.div_ceil(rows);
    let threads = tch::get_num_threads().max(1) as usize;
    let tasks = strips.div_ceil(STRIPS * threads) * threads;
    let rows_a_task = strips.div_ceil(tasks.max(1)).max(1) * rows;
    for_each(m.div_ceil(rows_a_task), &|task| {
        let first = task * rows_a_task;
        let rows = rows_a_task.min(m - first);
        // SAFETY: a task has its own rows.
        let c = unsafe { c.piece(first * n, rows * n) };
        let mut strips = STRIPS_OF_A.take();
        strips.resize(rows.div_ceil(rows_of(level)) * STRIP, 0.0);
        let output = match output {
            Output::AddResidual(base) => Output::AddResidual(&base[first * n..][..rows * n]),
            output => output,
        };
        level.run(Block { a, first, rows, slice, panels, c, n, output, strips: &mut strips });
        STRIPS_OF_A.set(strips);
    });
}

/// Rows that the registers hold.
fn rows_of(level: Level) -> usize {
    struct Rows<'a>(&'a mut usize);
    impl Kernel for Rows<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            *self.0 = S::ROWS;
        }
    }
    let mut rows = 0;
    level.run(Rows(&mut rows));
    rows
}

/// Some rows of `c`: what one task computes.
struct Block<'a> {
    a: &'a Factor<'a>,
    first: usize,
    rows: usize,
    slice: Slice,
    panels: &'a [f32],
    c: &'a mut [f32],
    n: usize,
    output: Output<'a>,
    /// This thread's memory for packed strips.
    strips: &'a mut [f32],
}

impl Kernel for Block<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Factor { values, columns, transposed, .. } = *self.a;
        let strips = std::mem::take(&mut self.strips);
        if transposed {
            self.pack_columns(S::ROWS, strips);
            self.multiply(s, strips, [1, COLUMN_STRIDE], COLUMN_STRIDE * DEPTH);
        } else if columns.is_multiple_of(CONFLICT) {
            self.pack_rows(strips);
            self.multiply(s, strips, [ROW_STRIDE, 1], ROW_STRIDE * S::ROWS);
        } else {
            let in_place = &values[self.first * columns + self.slice.start..];
            self.multiply(s, in_place, [columns, 1], columns * S::ROWS);
        }
    }
}

impl Block<'_> {
    /// Strips `[row, k]` of an `a` that lies row by row.
    #[inline(always)]
    fn pack_rows(&self, strips: &mut [f32]) {
        let Slice { start, depth } = self.slice;
        for row in 0..self.rows {
            let from = &self.a.values[(self.first + row) * self.a.columns + start..][..depth];
            strips[row * ROW_STRIDE..][..depth].copy_from_slice(from);
        }
    }

    /// Strips `[k, row]` of an `a` that lies column by column.
    #[inline(always)]
    fn pack_columns(&self, rows: usize, strips: &mut [f32]) {
        let Slice { start, depth } = self.slice;
        for (strip, row) in (0..self.rows).step_by(rows).enumerate() {
            let to = &mut strips[strip * COLUMN_STRIDE * DEPTH..][..COLUMN_STRIDE * depth];
            let count = rows.min(self.rows - row);
            for (k, to) in (start..).zip(to.chunks_exact_mut(COLUMN_STRIDE)) {
                copy::<ROWS_MAX>(&self.a.values[k * self.a.columns + self.first + row..][..count], to);
            }
        }
    }

    /// All rows by all panels; strips of `a` lie `strip` floats apart.
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, s: S, a: &[f32], strides: [usize; 2], strip: usize) {
        let depth = self.slice.depth;
        for (panel, b) in self.panels.chunks_exact(depth * PANEL).enumerate() {
            let columns = PANEL.min(self.n - panel * PANEL);
            for (number, row) in (0..self.rows).step_by(S::ROWS).enumerate() {
                let rows = S::ROWS.min(self.rows - row);
                let a = Strip { rows, values: &a[number * strip..], strides };
                let (at, n) = (row * self.n + panel * PANEL, self.n);
                if columns == PANEL {
                    // SAFETY: the tile lies within `c` (and `output`, which has its shape), the strip within `a`.
                    unsafe {
                        tile(s, a, b, OutputTile { c: self.c.as_mut_ptr().add(at), n, output: self.output.at(at) })
                    };
                    continue;
                }
                let mut whole = [0f32; ROWS_MAX * PANEL];
                // SAFETY: `whole` holds a tile.
                unsafe { tile(s, a, b, OutputTile { c: whole.as_mut_ptr(), n: PANEL, output: Store::Set }) };
                for row in 0..rows {
                    let at = at + row * n;
                    let sums = &whole[row * PANEL..][..columns];
                    put(&mut self.c[at..at + columns], sums, self.output, at);
                }
            }
        }
    }
}

/// What becomes of a row of sums at `at` of the block.
fn put(c: &mut [f32], sums: &[f32], output: Output, at: usize) {
    match output {
        Output::Set => c.copy_from_slice(sums),
        Output::Add => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
        Output::AddResidual(base) => {
            c.iter_mut().zip(sums).zip(&base[at..]).for_each(|((c, sum), base)| *c = base + sum)
        }
    }
}

impl Output<'_> {
    #[inline(always)]
    fn at(&self, at: usize) -> Store {
        match self {
            Output::Set => Store::Set,
            Output::Add => Store::Add,
            Output::AddResidual(base) => Store::AddResidual(base[at..].as_ptr()),
        }
    }
}

#[cfg(test)]
#[path = "gemm_tests.rs"]
mod tests;
