//! The kernels with NEON: weights of 32 bits, multiplied and added to 32 bits, as the scalar kernels do it.

use super::coefficients::{Coefficients, FRACTION_BITS, HALF};
use super::scalar;
use std::arch::aarch64::*;

/// Bytes of a pixel's load: one too many.
const LOAD_BYTES: usize = 4;
/// Bytes of a step of the vertical kernel.
const STEP_BYTES: usize = 16;

/// [`scalar::horizontal`] for a row that begins and ends with the first and last pixel that `coefficients` read; `out` takes
/// `coefficients.len()` pixels.
///
/// # Safety
/// The processor must have NEON.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn horizontal(row: &[u8], coefficients: &Coefficients, out: &mut [u8]) {
    let first_column = coefficients.source().start as usize;
    for ((first, weights), target) in coefficients.iter().zip(out.chunks_exact_mut(3)) {
        let source = &row[(first - first_column) * 3..];
        // The last load of four bytes must end within the row.
        if weights.is_empty() || source.len() < (weights.len() - 1) * 3 + LOAD_BYTES {
            scalar::horizontal_pixel(source, weights, target);
        } else {
            // SAFETY: NEON is there (caller), and every pixel's load lies within `source`, as was just checked.
            let pixel = unsafe { horizontal_pixel(source.as_ptr(), weights) };
            target.copy_from_slice(&pixel[..3]);
        }
    }
}

/// R, G, B and a byte without meaning.
///
/// # Safety
/// The processor must have NEON, and `source` must point to `(weights.len() - 1) * 3 + 4` readable bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn horizontal_pixel(source: *const u8, weights: &[i32]) -> [u8; 4] {
    let mut sums = vdupq_n_s32(HALF);
    for (tap, &weight) in weights.iter().enumerate() {
        // SAFETY: the caller vouches for the four bytes.
        let word = unsafe { source.add(tap * 3).cast::<u32>().read_unaligned() };
        let wide = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(word)))));
        sums = vmlaq_n_s32(sums, vreinterpretq_s32_u32(wide), weight);
    }
    let words = vcombine_u16(finish(sums), vdup_n_u16(0));
    let bytes = vqmovn_u16(words);
    vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)).to_le_bytes()
}

/// Shifts the fraction out; negative sums become 0.
#[inline]
#[target_feature(enable = "neon")]
fn finish(sums: int32x4_t) -> uint16x4_t {
    vqmovun_s32(vshrq_n_s32::<{ FRACTION_BITS as i32 }>(sums))
}

/// [`scalar::vertical`].
///
/// # Safety
/// The processor must have NEON.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn vertical(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    let whole = out.len() - out.len() % STEP_BYTES;
    let reach = if weights.is_empty() { 0 } else { (weights.len() - 1) * stride + out.len() };
    assert!(source.len() >= reach, "the rows that the weights ask for are there");
    for at in (0..whole).step_by(STEP_BYTES) {
        // SAFETY: NEON is there (caller). Row i is read at `i * stride + at .. + 16`, within the length asserted above; 16
        // bytes are written at `at`, within `whole <= out.len()`.
        unsafe { vertical_step(source.as_ptr().add(at), stride, weights, out.as_mut_ptr().add(at)) };
    }
    if whole < out.len() {
        scalar::vertical(&source[whole.min(source.len())..], stride, weights, &mut out[whole..]);
    }
}

/// 16 bytes of a row.
///
/// # Safety
/// The processor must have NEON; 16 bytes must be readable at `source + i * stride` for every i below `weights.len()`, and
/// writable at `out`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn vertical_step(source: *const u8, stride: usize, weights: &[i32], out: *mut u8) {
    let mut sums = [vdupq_n_s32(HALF); 4];
    for (row, &weight) in weights.iter().enumerate() {
        // SAFETY: the caller vouches for the 16 bytes of every row.
        let bytes = unsafe { vld1q_u8(source.add(row * stride)) };
        let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
        let quarters = [vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)];
        for (sum, quarter) in sums.iter_mut().zip(quarters) {
            *sum = vmlaq_n_s32(*sum, vreinterpretq_s32_u32(vmovl_u16(quarter)), weight);
        }
    }
    let [a, b, c, d] = sums.map(|sum| finish(sum));
    let bytes = vcombine_u8(vqmovn_u16(vcombine_u16(a, b)), vqmovn_u16(vcombine_u16(c, d)));
    // SAFETY: the caller vouches for 16 writable bytes.
    unsafe { vst1q_u8(out, bytes) };
}
