//! A tile of a matrix product, whose sums stay in registers: what every product is made of.

use crate::kernels::simd::{LANES_MAX, Simd, VECTORS};

/// Columns of a panel of `b`.
pub const PANEL: usize = VECTORS * LANES_MAX;
/// Most rows that the registers of any instruction set hold.
pub(crate) const ROWS_MAX: usize = 14;

/// Rows of `a`, at most as many as the registers hold. Element (row, k) lies at `row * strides[0] + k * strides[1]`.
#[derive(Debug, Clone, Copy)]
pub struct Strip<'a> {
    /// How many rows.
    pub rows: usize,
    /// What they lie in.
    pub values: &'a [f32],
    /// Floats from row to row, and from k to k.
    pub strides: [usize; 2],
}

/// Destination of a tile of results: rows of [`PANEL`], `n` apart.
#[derive(Clone, Copy)]
pub(crate) struct OutputTile {
    pub c: *mut f32,
    pub n: usize,
    pub output: Store,
}

/// [`Output`] at one place.
#[derive(Clone, Copy)]
pub(crate) enum Store {
    Set,
    Add,
    AddResidual(*const f32),
}

/// A strip by one panel.
///
/// # Safety
/// `to` (and what [`Store`] points to) holds the strip's rows of [`PANEL`].
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd>(s: S, a: Strip, b: &[f32], to: OutputTile) {
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
unsafe fn sums<S: Simd, const R: usize>(s: S, a: Strip, b: &[f32], column: usize, to: OutputTile) {
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
                    Store::Set => sum,
                    Store::Add => s.add(s.load(to.c.add(at)), sum),
                    Store::AddResidual(base) => s.add(s.load(base.add(at)), sum),
                };
                s.store(to.c.add(at), sum);
            }
        }
    }
}
