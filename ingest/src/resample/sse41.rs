//! The kernels with SSE4.1. How they are exact: see `packed`.

use super::coefficients::{Coefficients, FRACTION_BITS, HALF};
use super::packed::{self, Across, Down, LOW_BITS, Step};
use super::scalar;
use std::arch::x86_64::*;

/// Bytes of a step of the vertical kernel.
const STEP_BYTES: usize = 16;

/// [`scalar::horizontal`] for a row that begins and ends with the first and last pixel that `coefficients` read, for
/// which `packed` was made; `out` takes `coefficients.len()` pixels.
///
/// # Safety
/// The processor must have SSE4.1.
#[target_feature(enable = "sse4.1")]
pub(crate) unsafe fn horizontal(row: &[u8], coefficients: &Coefficients, packed: &Across, out: &mut [u8]) {
    assert!(row.len() == coefficients.source().len() * 3, "the row that the weights were laid out for");
    assert!(packed.outputs.len() == coefficients.len(), "the weights were laid out for these outputs");
    let mut all_steps = &packed.steps[..];
    let (within, beyond) = out.split_at_mut(packed.within * 3);
    for (&(start, steps), target) in packed.outputs.iter().zip(within.chunks_exact_mut(3)) {
        let (mine, rest) = all_steps.split_at(steps);
        all_steps = rest;
        // SAFETY: SSE4.1 is there (caller). The steps of the first `within` outputs load within the row.
        let pixel = unsafe { horizontal_pixel(row.as_ptr().add(start), mine) };
        target.copy_from_slice(&pixel[..3]);
    }
    for (o, target) in (packed.within..coefficients.len()).zip(beyond.chunks_exact_mut(3)) {
        scalar::horizontal_pixel(&row[packed.outputs[o].0..], coefficients.get(o).1, target);
    }
}

/// R, G, B and a byte without meaning.
///
/// # Safety
/// The processor must have SSE4.1, and `source` must point to `(steps - 1) * 6 + 16` readable bytes.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn horizontal_pixel(source: *const u8, steps: &[Step]) -> [u8; 4] {
    // A pair of taps side by side, widened to 16 bits: r0 r1 g0 g1 b0 b1 - -
    let pair = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    let (mut low, mut high) = (_mm_setzero_si128(), _mm_setzero_si128());
    for (i, weights) in steps.iter().enumerate() {
        // SAFETY: a half of a step is 16 bytes; the caller vouches for the 16 bytes of every step.
        let (weights, pixels) = unsafe {
            let weights = [0, 1].map(|half| _mm_loadu_si128(weights[half].as_ptr().cast()));
            (weights, _mm_loadu_si128(source.add(i * packed::STEP_BYTES).cast()))
        };
        let samples = _mm_shuffle_epi8(pixels, pair);
        low = _mm_add_epi32(low, _mm_madd_epi16(samples, weights[0]));
        high = _mm_add_epi32(high, _mm_madd_epi16(samples, weights[1]));
    }
    let words = _mm_packs_epi32(finish(low, high), _mm_setzero_si128());
    _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes()
}

/// Puts the sums of low and high products together, rounds, and shifts the fraction out.
#[inline]
#[target_feature(enable = "sse4.1")]
fn finish(low: __m128i, high: __m128i) -> __m128i {
    let sum = _mm_add_epi32(low, _mm_slli_epi32::<{ LOW_BITS as i32 }>(high));
    _mm_srai_epi32::<{ FRACTION_BITS as i32 }>(_mm_add_epi32(sum, _mm_set1_epi32(HALF)))
}

/// [`scalar::vertical`] for output number `o` of those that `packed` was laid out for, whose weights are `weights`.
///
/// # Safety
/// The processor must have SSE4.1.
#[target_feature(enable = "sse4.1")]
pub(crate) unsafe fn vertical(source: &[u8], stride: usize, weights: &[i32], packed: &Down, o: usize, out: &mut [u8]) {
    let (pairs, taps) = packed.checked(o, source.len(), stride, out.len());
    let whole = out.len() - out.len() % STEP_BYTES;
    for at in (0..whole).step_by(STEP_BYTES) {
        // SAFETY: SSE4.1 is there (caller). Row i < taps is read at `i * stride + at .. + 16`, within the length that was
        // checked; 16 bytes are written at `at`, within `whole <= out.len()`.
        unsafe { vertical_step(source.as_ptr().add(at), stride, pairs, taps, out.as_mut_ptr().add(at)) };
    }
    if whole < out.len() {
        scalar::vertical(&source[whole.min(source.len())..], stride, weights, &mut out[whole..]);
    }
}

/// 16 bytes of a row.
///
/// # Safety
/// The processor must have SSE4.1; 16 bytes must be readable at `source + i * stride` for every i below `taps`, and writable
/// at `out`; `pairs` are those of `taps` taps.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn vertical_step(source: *const u8, stride: usize, pairs: &[(i32, i32)], taps: usize, out: *mut u8) {
    let zero = _mm_setzero_si128();
    let mut sums_low = [zero; 4];
    let mut sums_high = [zero; 4];
    for (pair, &(low, high)) in pairs.iter().enumerate() {
        // A last single row is paired with itself; its second weight is 0.
        let second = (2 * pair + 1).min(taps - 1);
        // SAFETY: both rows are below `taps`, so the caller vouches for 16 bytes of each.
        let (a, b) = unsafe {
            let a = _mm_loadu_si128(source.add(2 * pair * stride).cast());
            (a, _mm_loadu_si128(source.add(second * stride).cast()))
        };
        let (low, high) = (_mm_set1_epi32(low), _mm_set1_epi32(high));
        let (ab0, ab1) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
        let quarters = [
            _mm_unpacklo_epi8(ab0, zero),
            _mm_unpackhi_epi8(ab0, zero),
            _mm_unpacklo_epi8(ab1, zero),
            _mm_unpackhi_epi8(ab1, zero),
        ];
        for (q, samples) in quarters.into_iter().enumerate() {
            sums_low[q] = _mm_add_epi32(sums_low[q], _mm_madd_epi16(samples, low));
            sums_high[q] = _mm_add_epi32(sums_high[q], _mm_madd_epi16(samples, high));
        }
    }
    let quarter = |q: usize| finish(sums_low[q], sums_high[q]);
    let words0 = _mm_packs_epi32(quarter(0), quarter(1));
    let words1 = _mm_packs_epi32(quarter(2), quarter(3));
    // SAFETY: the caller vouches for 16 writable bytes.
    unsafe { _mm_storeu_si128(out.cast(), _mm_packus_epi16(words0, words1)) };
}
