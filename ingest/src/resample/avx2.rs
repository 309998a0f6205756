//! The kernels with AVX2. How they are exact: see `packed`.

use super::coefficients::{Coefficients, FRACTION_BITS, HALF};
use super::packed::{self, Across, Down, LOW_BITS, Step};
use super::scalar;
use std::arch::x86_64::*;

/// Rows that the horizontal kernel works on at once, sharing the loads of weights.
pub(crate) const ROWS: usize = 4;
/// Bytes of a step of the vertical kernel.
const STEP_BYTES: usize = 32;

/// [`scalar::horizontal`] for four rows. `rows` begin and end with the first and last pixel that `coefficients` read, for
/// which `packed` was made; every row of `out` takes `coefficients.len()` pixels.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn horizontal(
    rows: [&[u8]; ROWS],
    coefficients: &Coefficients,
    packed: &Across,
    mut out: [&mut [u8]; ROWS],
) {
    let row_bytes = coefficients.source().len() * 3;
    assert!(rows.iter().all(|row| row.len() == row_bytes), "the rows that the weights were laid out for");
    assert!(packed.outputs.len() == coefficients.len(), "the weights were laid out for these outputs");
    let mut all_steps = &packed.steps[..];
    for (o, &(start, steps)) in packed.outputs[..packed.within].iter().enumerate() {
        let (mine, rest) = all_steps.split_at(steps);
        all_steps = rest;
        // SAFETY: AVX2 is there (caller). The steps of the first `within` outputs load within `row_bytes`, the length of
        // every row.
        let pixels = unsafe { horizontal_pixels(rows.map(|row| row.as_ptr().add(start)), mine) };
        for (out, pixel) in out.iter_mut().zip(pixels) {
            match out[o * 3..].first_chunk_mut::<4>() {
                Some(target) => *target = pixel, // the byte too many is the next pixel's first
                None => out[o * 3..o * 3 + 3].copy_from_slice(&pixel[..3]),
            }
        }
    }
    for (row, out) in rows.into_iter().zip(out) {
        for o in packed.within..coefficients.len() {
            let (_, weights) = coefficients.get(o);
            scalar::horizontal_pixel(&row[packed.outputs[o].0..], weights, &mut out[o * 3..o * 3 + 3]);
        }
    }
}

/// One pixel of each of four rows: R, G, B and a byte without meaning.
///
/// # Safety
/// The processor must have AVX2, and every source must point to `(steps - 1) * 6 + 16` readable bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn horizontal_pixels(sources: [*const u8; ROWS], steps: &[Step]) -> [[u8; 4]; ROWS] {
    // A pair of taps side by side, widened to 16 bits, for each of two rows: r0 r1 g0 g1 b0 b1 - -
    let pair = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
    );
    let mut sums_low = [_mm256_setzero_si256(); ROWS / 2];
    let mut sums_high = [_mm256_setzero_si256(); ROWS / 2];
    for (i, [low, high]) in steps.iter().enumerate() {
        // SAFETY: a half of a step is 16 bytes.
        let (low, high) = unsafe { (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())) };
        let (low, high) = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
        for two in 0..ROWS / 2 {
            let at = i * packed::STEP_BYTES;
            // SAFETY: the caller vouches for the 16 bytes of every step of both rows.
            let pixels = unsafe {
                let upper = _mm_loadu_si128(sources[2 * two].add(at).cast());
                let lower = _mm_loadu_si128(sources[2 * two + 1].add(at).cast());
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(upper), lower)
            };
            let samples = _mm256_shuffle_epi8(pixels, pair);
            sums_low[two] = _mm256_add_epi32(sums_low[two], _mm256_madd_epi16(samples, low));
            sums_high[two] = _mm256_add_epi32(sums_high[two], _mm256_madd_epi16(samples, high));
        }
    }
    let words = _mm256_packs_epi32(finish(sums_low[0], sums_high[0]), finish(sums_low[1], sums_high[1]));
    let bytes = _mm256_packus_epi16(words, words); // rows 0, 2 | 1, 3
    let even = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes)).to_le_bytes();
    let odd = _mm_cvtsi128_si64(_mm256_extracti128_si256::<1>(bytes)).to_le_bytes();
    let quarter = |b: [u8; 8], half: usize| [b[4 * half], b[4 * half + 1], b[4 * half + 2], b[4 * half + 3]];
    [quarter(even, 0), quarter(odd, 0), quarter(even, 1), quarter(odd, 1)]
}

/// Puts the sums of low and high products together, rounds, and shifts the fraction out.
#[inline]
#[target_feature(enable = "avx2")]
fn finish(low: __m256i, high: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(low, _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high));
    _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(_mm256_add_epi32(sum, _mm256_set1_epi32(HALF)))
}

/// [`scalar::vertical`] for output number `o` of those that `packed` was laid out for, whose weights are `weights`.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn vertical(source: &[u8], stride: usize, weights: &[i32], packed: &Down, o: usize, out: &mut [u8]) {
    let (pairs, taps) = packed.checked(o, source.len(), stride, out.len());
    let whole = out.len() - out.len() % STEP_BYTES;
    for at in (0..whole).step_by(STEP_BYTES) {
        // SAFETY: AVX2 is there (caller). Row i < taps is read at `i * stride + at .. + 32`, within the length that was
        // checked; 32 bytes are written at `at`, within `whole <= out.len()`.
        unsafe { vertical_step(source.as_ptr().add(at), stride, pairs, taps, out.as_mut_ptr().add(at)) };
    }
    if whole < out.len() {
        scalar::vertical(&source[whole.min(source.len())..], stride, weights, &mut out[whole..]);
    }
}

/// 32 bytes of a row.
///
/// # Safety
/// The processor must have AVX2; 32 bytes must be readable at `source + i * stride` for every i below `taps`, and writable
/// at `out`; `pairs` are those of `taps` taps.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn vertical_step(source: *const u8, stride: usize, pairs: &[(i32, i32)], taps: usize, out: *mut u8) {
    let zero = _mm256_setzero_si256();
    let mut sums_low = [zero; 4];
    let mut sums_high = [zero; 4];
    for (pair, &(low, high)) in pairs.iter().enumerate() {
        // A last single row is paired with itself; its second weight is 0.
        let second = (2 * pair + 1).min(taps - 1);
        // SAFETY: both rows are below `taps`, so the caller vouches for 32 bytes of each.
        let (a, b) = unsafe {
            let a = _mm256_loadu_si256(source.add(2 * pair * stride).cast());
            (a, _mm256_loadu_si256(source.add(second * stride).cast()))
        };
        let (low, high) = (_mm256_set1_epi32(low), _mm256_set1_epi32(high));
        let (ab0, ab1) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let quarters = [
            _mm256_unpacklo_epi8(ab0, zero),
            _mm256_unpackhi_epi8(ab0, zero),
            _mm256_unpacklo_epi8(ab1, zero),
            _mm256_unpackhi_epi8(ab1, zero),
        ];
        for (q, samples) in quarters.into_iter().enumerate() {
            sums_low[q] = _mm256_add_epi32(sums_low[q], _mm256_madd_epi16(samples, low));
            sums_high[q] = _mm256_add_epi32(sums_high[q], _mm256_madd_epi16(samples, high));
        }
    }
    // Packing works within 128-bit lanes, as unpacking did: the bytes are in order again.
    let quarter = |q: usize| finish(sums_low[q], sums_high[q]);
    let words0 = _mm256_packs_epi32(quarter(0), quarter(1));
    let words1 = _mm256_packs_epi32(quarter(2), quarter(3));
    // SAFETY: the caller vouches for 32 writable bytes.
    unsafe { _mm256_storeu_si256(out.cast(), _mm256_packus_epi16(words0, words1)) };
}
