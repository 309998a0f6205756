//! Products of matrices in fp32, on libtorch's threads.
//!
//! `c = a b` for `a [M, K]` and `b [K, N]`, either of which may lie transposed in memory. Slices of K are packed: `b` into panels
//! of 32 columns by all threads together, `a` into strips of as many rows as the registers hold, by the thread that
//! needs them. Each element of `c` is a sum over k in ascending order, slice by slice, with fused multiplication: its bits do
//! not depend on the number of threads or the width of the vectors.

use super::threads::{Pieces, for_each};
use std::cell::Cell;
use std::sync::OnceLock;
use tokengrid_tokenize::simd::{Kernel, LANES_MAX, Level, Simd, VECTORS};

/// Columns of a panel of `b`.
pub(crate) const PANEL: usize = VECTORS * LANES_MAX;
/// Most of k that is multiplied at once: a panel then stays in the second-level cache.
const DEPTH: usize = 512;
/// Strips of rows that a task takes at most: a task's part of `a` then stays in the second-level cache.
const STRIPS: usize = 12;
/// Most rows that the registers of any instruction set hold.
const ROWS_MAX: usize = 14;
/// Rows this many floats apart lie in the same few lines of the first-level cache.
const CONFLICT: usize = 256;
/// Floats from row to row of a packed strip of rows; no power of two, which would put all rows into the same cache lines.
const ROW_STRIDE: usize = DEPTH + 16;
/// Floats from k to k of a packed strip of columns.
const COLUMN_STRIDE: usize = 16;

/// Most floats of a packed strip.
const STRIP: usize =
    if ROWS_MAX * ROW_STRIDE > COLUMN_STRIDE * DEPTH { ROWS_MAX * ROW_STRIDE } else { COLUMN_STRIDE * DEPTH };

/// A factor as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix `[rows, columns]`, row by row.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Factor<'a> {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} x {columns}");
        Factor { values, rows, columns, transposed: false }
    }

    /// Its transpose.
    pub fn transposed(self) -> Factor<'a> {
        Factor { transposed: !self.transposed, ..self }
    }

    /// Rows and columns of the matrix that it stands for.
    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// It replaces what was there.
    Set,
    /// It is added to what was there.
    Add,
    /// It replaces what was there, with this matrix of the same shape added.
    Plus(&'a [f32]),
}

/// `c [M, N]` from `a [M, K]` and `b [K, N]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn multiply(a: Factor, b: Factor, c: &mut [f32], output: Output) {
    multiply_at(level(), a, b, c, output);
}

/// The instruction set of this processor.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| Level::detect().unwrap_or(Level::Portable))
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
    if let Output::Plus(base) = output {
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

/// A small factor `b [K, N]`, packed whole, for tasks that multiply strips of their own.
#[derive(Debug, Default)]
pub(crate) struct Panels {
    values: Vec<f32>,
    depth: usize,
}

impl Panels {
    /// Replaces what was there by `b`; takes memory only when `b` is larger than ever before.
    #[inline(always)]
    pub(crate) fn pack(&mut self, b: Factor) {
        self.depth = b.shape().0;
        let (size, count) = (self.depth * PANEL, b.shape().1.div_ceil(PANEL));
        self.values.resize(size * count, 0.0);
        for (panel, to) in self.values.chunks_exact_mut(size).enumerate() {
            pack_panel(&b, Slice { start: 0, depth: self.depth }, panel * PANEL, to);
        }
    }

    /// Room for a factor `[depth, columns]` that is filled in later, all zeros.
    pub(crate) fn zeros(depth: usize, columns: usize) -> Panels {
        Panels { values: vec![0.0; columns.div_ceil(PANEL) * PANEL * depth], depth }
    }

    /// Replaces column `column`.
    pub(crate) fn set_column(&mut self, column: usize, values: &[f32]) {
        let panel = &mut self.values[column / PANEL * self.depth * PANEL..][..self.depth * PANEL];
        for (row, &value) in panel.chunks_exact_mut(PANEL).zip(values) {
            row[column % PANEL] = value;
        }
    }

    /// Replaces row `row`.
    pub(crate) fn set_row(&mut self, row: usize, values: &[f32]) {
        let panels = self.values.chunks_exact_mut(self.depth * PANEL);
        for (panel, values) in panels.zip(values.chunks(PANEL)) {
            panel[row * PANEL..][..values.len()].copy_from_slice(values);
        }
    }

    /// `c = a b`, or with `add` `c += a b`, by all threads: `rows` rows of `a`, `a_stride` floats apart, to rows of `c` that lie
    /// `n` apart and have room for whole panels.
    pub(crate) fn multiply_all(&self, rows: usize, a: &[f32], a_stride: usize, c: &mut [f32], n: usize, add: bool) {
        let count = self.values.len() / (self.depth * PANEL).max(1);
        assert!(n >= count * PANEL && c.len() >= rows * n, "{rows} rows of {} panels in rows of {n}", count);
        let pieces = Pieces::of(c);
        for_each(count, &|panel| {
            let b = &self.values[panel * self.depth * PANEL..][..self.depth * PANEL];
            let output = if add { At::Add } else { At::Set };
            level().run(OnePanel { rows, a, a_stride, b, c: pieces.pointer(panel * PANEL), n, output });
        });
    }

    /// `c = a b` over `ks` and the columns that `c` is asked for, rounded up to whole panels; `a`'s k counts from the start of
    /// `ks`, and rows of `c` lie `n` apart.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(
        &self,
        s: S,
        a: Strip,
        ks: std::ops::Range<usize>,
        columns: usize,
        c: &mut [f32],
        n: usize,
    ) {
        let count = columns.div_ceil(PANEL);
        assert!(n >= count * PANEL && c.len() >= (a.rows - 1) * n + count * PANEL, "{} rows of {columns}", a.rows);
        for (panel, b) in self.values.chunks_exact(self.depth * PANEL).take(count).enumerate() {
            let b = &b[ks.start * PANEL..ks.end * PANEL];
            // SAFETY: `c` was checked.
            unsafe { tile(s, a, b, Place { c: c.as_mut_ptr().add(panel * PANEL), n, output: At::Set }) };
        }
    }
}

/// Rows of `a`, at most as many as the registers hold. Element (row, k) lies at `row * strides[0] + k * strides[1]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strip<'a> {
    pub rows: usize,
    pub values: &'a [f32],
    pub strides: [usize; 2],
}

/// Where a tile of results goes: rows of [`PANEL`], `n` apart.
#[derive(Clone, Copy)]
struct Place {
    c: *mut f32,
    n: usize,
    output: At,
}

/// Some rows by one panel.
struct OnePanel<'a> {
    rows: usize,
    a: &'a [f32],
    a_stride: usize,
    b: &'a [f32],
    /// Where the panel's columns of `c` begin.
    c: *mut f32,
    n: usize,
    output: At,
}

impl Kernel for OnePanel<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in (0..self.rows).step_by(S::ROWS) {
            let rows = S::ROWS.min(self.rows - row);
            let a = Strip { rows, values: &self.a[row * self.a_stride..], strides: [self.a_stride, 1] };
            // SAFETY: `multiply_all` checked the size of `c`, and no other task has these columns.
            unsafe { tile(s, a, self.b, Place { c: self.c.add(row * self.n), n: self.n, output: self.output }) };
        }
    }
}

/// A range of k.
#[derive(Debug, Clone, Copy)]
struct Slice {
    start: usize,
    depth: usize,
}

/// `b`'s slice as panels `[N / PANEL, rounded up][depth][PANEL]`; missing columns are 0.
fn pack_panels(b: &Factor, slice: Slice, panels: &mut [f32]) {
    let size = slice.depth * PANEL;
    let pieces = Pieces::of(panels);
    for_each(b.shape().1.div_ceil(PANEL), &|panel| {
        // SAFETY: a task has a panel of its own.
        pack_panel(b, slice, panel * PANEL, unsafe { pieces.piece(panel * size, size) });
    });
}

/// Columns from `first` on.
#[inline(always)]
fn pack_panel(b: &Factor, slice: Slice, first: usize, to: &mut [f32]) {
    let columns = PANEL.min(b.shape().1 - first);
    if columns < PANEL {
        to.fill(0.0);
    }
    if b.transposed {
        return pack_transposed(b, slice, first, columns, to);
    }
    for (k, to) in (slice.start..).zip(to.chunks_exact_mut(PANEL)) {
        copy::<PANEL>(&b.values[k * b.columns + first..][..columns], to);
    }
}

/// Copies `from`; when it has the usual `LEN`, without a call.
#[inline(always)]
fn copy<const LEN: usize>(from: &[f32], to: &mut [f32]) {
    match <&[f32; LEN]>::try_from(from) {
        Ok(from) => to[..LEN].copy_from_slice(from),
        Err(_) => to[..from.len()].copy_from_slice(from),
    }
}

/// A panel of a `b` that lies transposed, in squares that stay in the first-level cache.
fn pack_transposed(b: &Factor, slice: Slice, first: usize, columns: usize, to: &mut [f32]) {
    const SIDE: usize = 16;
    for (square, to) in to.chunks_mut(SIDE * PANEL).enumerate() {
        let start = slice.start + square * SIDE;
        let side = to.len() / PANEL;
        for column in 0..columns {
            let from = &b.values[(first + column) * b.columns + start..][..side];
            for (k, &value) in from.iter().enumerate() {
                to[k * PANEL + column] = value;
            }
        }
    }
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
        // SAFETY: a task has rows of its own.
        let c = unsafe { c.piece(first * n, rows * n) };
        let mut strips = STRIPS_OF_A.take();
        strips.resize(rows.div_ceil(rows_of(level)) * STRIP, 0.0);
        let output = match output {
            Output::Plus(base) => Output::Plus(&base[first * n..][..rows * n]),
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
    /// Strips `[row][k]` of an `a` that lies row by row.
    #[inline(always)]
    fn pack_rows(&self, strips: &mut [f32]) {
        let Slice { start, depth } = self.slice;
        for row in 0..self.rows {
            let from = &self.a.values[(self.first + row) * self.a.columns + start..][..depth];
            strips[row * ROW_STRIDE..][..depth].copy_from_slice(from);
        }
    }

    /// Strips `[k][row]` of an `a` that lies column by column.
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
                    unsafe { tile(s, a, b, Place { c: self.c.as_mut_ptr().add(at), n, output: self.output.at(at) }) };
                    continue;
                }
                let mut whole = [0f32; ROWS_MAX * PANEL];
                // SAFETY: `whole` holds a tile.
                unsafe { tile(s, a, b, Place { c: whole.as_mut_ptr(), n: PANEL, output: At::Set }) };
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
        Output::Plus(base) => c.iter_mut().zip(sums).zip(&base[at..]).for_each(|((c, sum), base)| *c = base + sum),
    }
}

/// [`Output`] at one place.
#[derive(Clone, Copy)]
enum At {
    Set,
    Add,
    Plus(*const f32),
}

impl Output<'_> {
    #[inline(always)]
    fn at(&self, at: usize) -> At {
        match self {
            Output::Set => At::Set,
            Output::Add => At::Add,
            Output::Plus(base) => At::Plus(base[at..].as_ptr()),
        }
    }
}

/// A strip by one panel.
///
/// # Safety
/// `to` (and what [`At`] points to) holds the strip's rows of [`PANEL`].
#[inline(always)]
unsafe fn tile<S: Simd>(s: S, a: Strip, b: &[f32], to: Place) {
    let (rows, last_k) = (a.rows, b.len() / PANEL - 1);
    assert!(rows <= S::ROWS && a.values.len() > (rows - 1) * a.strides[0] + last_k * a.strides[1]);
    for column in (0..PANEL).step_by(VECTORS * S::LANES) {
        macro_rules! choose {
            ($($count:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise and the sizes asserted above.
                    $($count if $count <= S::ROWS => unsafe { sums::<S, $count>(s, a, b, column, to) },)*
                    _ => unreachable!("at most 14 rows"),
                }
            };
        }
        choose!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
    }
}

/// `R` rows of sums in registers, from `column` of the panel on.
///
/// # Safety
/// As for [`tile`]; `a` has elements for `R` rows and all k of the panel `b`.
#[inline(always)]
unsafe fn sums<S: Simd, const R: usize>(s: S, a: Strip, b: &[f32], column: usize, to: Place) {
    let (values, [row_stride, k_stride]) = (a.values.as_ptr(), a.strides);
    let mut sums = [[s.splat(0.0); VECTORS]; R];
    for (k, b) in b.chunks_exact(PANEL).enumerate() {
        // SAFETY: the caller's promise; `column + VECTORS * LANES <= PANEL`.
        unsafe {
            let b = b.as_ptr().add(column);
            let b: [S::V; VECTORS] = [s.load(b), s.load(b.add(S::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = s.splat(*values.add(row * row_stride + k * k_stride));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = s.fma(a, b, *sum);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let at = row * to.n + column + vector * S::LANES;
            // SAFETY: the caller's promise.
            unsafe {
                let sum = match to.output {
                    At::Set => sum,
                    At::Add => s.add(s.load(to.c.add(at)), sum),
                    At::Plus(base) => s.add(s.load(base.add(at)), sum),
                };
                s.store(to.c.add(at), sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;

    fn values(name: u64, count: usize) -> Vec<f32> {
        let mut rng = CounterRng::new(&[name]);
        (0..count).map(|_| rng.uniform() as f32 - 0.5).collect()
    }

    fn element(values: &[f32], columns: usize, transposed: bool, row: usize, column: usize) -> f64 {
        f64::from(if transposed { values[column * columns + row] } else { values[row * columns + column] })
    }

    /// Sums in f64.
    fn reference(a: &Factor, b: &Factor, base: &[f32]) -> Vec<f64> {
        let ((m, k), n) = (a.shape(), b.shape().1);
        let sum = |i: usize, j: usize| -> f64 {
            let of = |f: &Factor, i, j| element(f.values, f.columns, f.transposed, i, j);
            (0..k).map(|k| of(a, i, k) * of(b, k, j)).sum()
        };
        (0..m * n).map(|at| f64::from(base[at]) + sum(at / n, at % n)).collect()
    }

    #[test]
    fn products_of_all_shapes_and_layouts_are_near_sums_in_f64_and_the_same_bits_everywhere() {
        let shapes = [[1, 1, 1], [14, 32, 16], [15, 31, 33], [3, 600, 70], [200, 40, 64], [61, 1100, 5]];
        for [m, k, n] in shapes {
            let (a, b, base) = (values(1, m * k), values(2, k * n), values(3, m * n));
            for (a, b) in [
                (Factor::new(&a, m, k), Factor::new(&b, k, n)),
                (Factor::new(&a, m, k), Factor::new(&b, n, k).transposed()),
                (Factor::new(&a, k, m).transposed(), Factor::new(&b, k, n)),
            ] {
                let zeros = vec![0.0; m * n];
                let run = |level, output| {
                    let mut c = base.clone();
                    multiply_at(level, a, b, &mut c, output);
                    c
                };
                for (output, added) in [(Output::Set, &zeros), (Output::Add, &base), (Output::Plus(&base), &base)] {
                    let want = reference(&a, &b, added);
                    let all: Vec<Vec<f32>> = Level::all().into_iter().map(|level| run(level, output)).collect();
                    for (got, want) in all[0].iter().zip(want) {
                        let bound = 1e-6 * (k as f64).sqrt().max(4.0);
                        assert!((f64::from(*got) - want).abs() < bound, "{m} {k} {n}: {got} {want}");
                    }
                    assert!(all.iter().all(|one| *one == all[0]), "{m} {k} {n}: widths differ");
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (a, b) = (values(1, 333 * 77), values(2, 77 * 130));
        let run = |threads| {
            let before = tch::get_num_threads();
            tch::set_num_threads(threads);
            let mut c = vec![0.0; 333 * 130];
            multiply(Factor::new(&a, 333, 77), Factor::new(&b, 77, 130), &mut c, Output::Set);
            tch::set_num_threads(before);
            c
        };
        assert!(run(1) == run(2) && run(1) == run(5));
    }
}
