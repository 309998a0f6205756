//! The right factor of a product in the order that the tiles read it: panels of 32 columns.

use super::threads::{Pieces, for_each};
use super::tile::{OutputTile, PANEL, Store, Strip, tile};
use crate::kernels::simd::{Kernel, Level, Simd};

/// A factor as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix `[rows, columns]`, row by row.
    ///
    /// # Panics
    /// When there are not `rows * columns` values.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Factor<'a> {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} x {columns}");
        Factor { values, rows, columns, transposed: false }
    }

    /// Its transpose.
    pub fn transposed(self) -> Factor<'a> {
        Factor { transposed: !self.transposed, ..self }
    }

    /// Rows and columns of the matrix that it stands for.
    pub(crate) fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }
}

/// A range of k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    pub start: usize,
    pub depth: usize,
}

/// A small factor `b [K, N]`, packed whole, for tasks that multiply their own strips.
#[derive(Debug, Default)]
pub struct Panels {
    values: Vec<f32>,
    depth: usize,
}

impl Panels {
    /// Replaces what was there by `b`; takes memory only when `b` is larger than ever before.
    #[inline(always)]
    pub fn pack(&mut self, b: Factor) {
        self.depth = b.shape().0;
        let (size, count) = (self.depth * PANEL, b.shape().1.div_ceil(PANEL));
        self.values.resize(size * count, 0.0);
        for (panel, to) in self.values.chunks_exact_mut(size).enumerate() {
            pack_panel(&b, Slice { start: 0, depth: self.depth }, panel * PANEL, to);
        }
    }

    /// The panels one after the other, `[depth, PANEL]` each.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact((self.depth * PANEL).max(1))
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
            let output = if add { Store::Add } else { Store::Set };
            Level::best().run(OnePanel { rows, a, a_stride, b, c: pieces.pointer(panel * PANEL), n, output });
        });
    }

    /// `c = a b` over `ks` and the columns that `c` is asked for, rounded up to whole panels; `a`'s k counts from the start of
    /// `ks`, and rows of `c` lie `n` apart.
    ///
    /// # Panics
    /// When `c` has no room for whole panels.
    #[inline(always)]
    pub fn multiply<S: Simd>(
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
            unsafe { tile(s, a, b, OutputTile { c: c.as_mut_ptr().add(panel * PANEL), n, output: Store::Set }) };
        }
    }
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
    output: Store,
}

impl Kernel for OnePanel<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let OnePanel { rows, a, a_stride, b, c, n, output } = self;
        // SAFETY: `multiply_all` checked the size of `c`, and no other task has these columns.
        unsafe { strips_by_panel(s, rows, a, a_stride, b, OutputTile { c, n, output }) };
    }
}

/// Rows of `a`, `a_stride` floats apart, by one panel.
///
/// # Safety
/// As for [`tile`], of all rows.
#[inline(always)]
unsafe fn strips_by_panel<S: Simd>(s: S, rows: usize, a: &[f32], a_stride: usize, b: &[f32], to: OutputTile) {
    for row in (0..rows).step_by(S::ROWS) {
        let a = Strip { rows: S::ROWS.min(rows - row), values: &a[row * a_stride..], strides: [a_stride, 1] };
        // SAFETY: the caller's promise.
        unsafe { tile(s, a, b, OutputTile { c: to.c.add(row * to.n), ..to }) };
    }
}

/// `c = a b`: rows of `a` (`k` long, one right after the other) by a panel `b [k][PANEL]`, to rows of `c` of [`PANEL`]. Each
/// result is one sum in ascending order of k: its bits depend on its own operands alone.
///
/// # Panics
/// When the slices do not have these sizes.
#[inline(always)]
pub(crate) fn multiply_panel<S: Simd>(s: S, a: &[f32], b: &[f32], c: &mut [f32], k: usize) {
    let rows = c.len() / PANEL;
    assert!(k > 0 && a.len() == rows * k && b.len() == k * PANEL && c.len() == rows * PANEL);
    // SAFETY: `c` has just these rows.
    unsafe { strips_by_panel(s, rows, a, k, b, OutputTile { c: c.as_mut_ptr(), n: PANEL, output: Store::Set }) };
}

/// Columns from `first` on.
#[inline(always)]
pub(crate) fn pack_panel(b: &Factor, slice: Slice, first: usize, to: &mut [f32]) {
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
pub(crate) fn copy<const LEN: usize>(from: &[f32], to: &mut [f32]) {
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
