//! The matrix product under every convolution: rows of activations by a panel of weights.
//!
//! Each result is one sum over k in ascending order with fused multiplication, whatever the width of the vectors and
//! however many rows there are: its bits depend on its own operands alone.

use crate::kernels::simd::{Simd, VECTORS};

/// Output channels of a panel. Weights are stored panel by panel, `[k][PANEL]`, so that the inner loop reads them in order.
pub const PANEL: usize = 32;

/// `c = a * b`: rows of `a` (`k` long, one right after the other) by a panel `b [k][PANEL]`, to rows of `c` of [`PANEL`].
///
/// # Panics
/// When the slices do not have these sizes.
#[inline(always)]
pub fn multiply<S: Simd>(s: S, a: &[f32], b: &[f32], c: &mut [f32], k: usize) {
    let rows = c.len() / PANEL;
    assert!(a.len() == rows * k && b.len() == k * PANEL && c.len() == rows * PANEL);
    for column in (0..PANEL).step_by(VECTORS * S::LANES) {
        let mut row = 0;
        while row < rows {
            let count = S::ROWS.min(rows - row);
            // SAFETY: rows `row .. row + count` and columns `column .. column + VECTORS * LANES` lie within the slices,
            // whose sizes were checked.
            unsafe {
                let (a, b) = (a.as_ptr().add(row * k), b.as_ptr().add(column));
                block_of(s, count, a, b, c.as_mut_ptr().add(row * PANEL + column), k);
            }
            row += count;
        }
    }
}

/// [`block`] for a number of rows that is known when it runs.
///
/// # Safety
/// As for [`block`].
#[inline(always)]
unsafe fn block_of<S: Simd>(s: S, rows: usize, a: *const f32, b: *const f32, c: *mut f32, k: usize) {
    macro_rules! choose {
        ($($n:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($n if $n <= S::ROWS => unsafe { block::<S, $n>(s, a, b, c, k) },)*
                _ => unreachable!("at most 14 rows"),
            }
        };
    }
    choose!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
}

/// `R` rows of results in registers.
///
/// # Safety
/// `a` points to `R` rows of `k`, `b` to `k` rows of `VECTORS * LANES` at a distance of [`PANEL`], `c` likewise to `R` rows.
#[inline(always)]
unsafe fn block<S: Simd, const R: usize>(s: S, a: *const f32, b: *const f32, c: *mut f32, k: usize) {
    let mut sums = [[s.splat(0.0); VECTORS]; R];
    for i in 0..k {
        // SAFETY: i < k, and the rest is the caller's promise.
        unsafe {
            let weights: [S::V; VECTORS] = [s.load(b.add(i * PANEL)), s.load(b.add(i * PANEL + S::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = s.splat(*a.add(row * k + i));
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = s.fma(value, weight, *sum);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (vector, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { s.store(c.add(row * PANEL + vector * S::LANES), *sum) };
        }
    }
}

/// Weights `[out][k]` as panels `[out / PANEL, rounded up][k][PANEL]`; missing output channels are 0.
pub fn pack(weights: &[f32], out: usize, k: usize) -> Vec<f32> {
    let mut packed = vec![0.0; out.div_ceil(PANEL) * k * PANEL];
    for (o, row) in weights.chunks_exact(k).enumerate() {
        let panel = &mut packed[o / PANEL * k * PANEL..][..k * PANEL];
        panel.iter_mut().skip(o % PANEL).step_by(PANEL).zip(row).for_each(|(to, from)| *to = *from);
    }
    packed
}
