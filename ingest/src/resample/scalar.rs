//! The kernels in plain Rust: the definition that every SIMD kernel must equal.

use super::coefficients::{Coefficients, FRACTION_BITS, HALF};

/// Rounds a sum of weighted samples to a sample.
fn finish(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// One row of RGB pixels, resampled along it. `row` begins with the pixel `first_column`; `out` takes
/// `coefficients.len()` pixels.
pub(crate) fn horizontal(row: &[u8], first_column: usize, coefficients: &Coefficients, out: &mut [u8]) {
    for (target, (first, weights)) in out.chunks_exact_mut(3).zip(coefficients.iter()) {
        horizontal_pixel(&row[(first - first_column) * 3..], weights, target);
    }
}

/// One pixel of [`horizontal`]; `source` begins with the first pixel that it reads.
pub(crate) fn horizontal_pixel(source: &[u8], weights: &[i32], target: &mut [u8]) {
    let mut sums = [HALF; 3];
    for (pixel, &weight) in source.chunks_exact(3).zip(weights) {
        for (sum, &sample) in sums.iter_mut().zip(pixel) {
            *sum += i32::from(sample) * weight;
        }
    }
    for (target, sum) in target.iter_mut().zip(sums) {
        *target = finish(sum);
    }
}

/// One output row: the weighted sum of `weights.len()` rows of `out.len()` bytes, the first at `source[0]`, `stride` bytes
/// apart.
pub(crate) fn vertical(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    const LANES: usize = 32;
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        let mut sums = [HALF; LANES];
        for (row, &weight) in weights.iter().enumerate() {
            let samples = &source[row * stride + block * LANES..][..out.len()];
            for (sum, &sample) in sums.iter_mut().zip(samples) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (target, sum) in out.iter_mut().zip(sums) {
            *target = finish(sum);
        }
    }
}
