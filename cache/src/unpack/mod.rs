//! Bits to tokens: the hot path of every reader.
//!
//! Eight tokens of `B` bits fill exactly `B` bytes, so every kernel works on groups of eight with all offsets and shifts
//! compile-time constants. [`scalar`] is the definition and runs anywhere; [`avx2`] and `neon` do the same for eight
//! tokens at once, chosen when the program runs.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod halves;
mod kernels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

pub(crate) use self::kernels::Kernels;
use crate::format::pack::{TOKEN_BITS_MAX, packed_bytes};

/// Unpacks a row into `u32` tokens, raster order.
///
/// `packed` has exactly [`packed_bytes`]`(out.len(), bits)` bytes. Spare bits at the end are ignored.
///
/// # Panics
/// When `bits` is not 1..=24 or the lengths do not fit.
pub fn unpack(packed: &[u8], bits: u32, out: &mut [u32]) {
    check_shape(out.len(), bits, packed.len());
    Kernels::best(bits).narrow(packed, out);
}

/// Unpacks a row into `i64` tokens, the index type of tensor libraries. Shapes and panics as [`unpack`].
pub fn unpack_i64(packed: &[u8], bits: u32, out: &mut [i64]) {
    check_shape(out.len(), bits, packed.len());
    Kernels::best(bits).wide(packed, out);
}

/// Unpacks a row into the two sub-tokens of an asymmetrically factorized codebook:
/// `pre = token % 2^low_bits` and `post = token / 2^low_bits`.
///
/// `pre` and `post` have one element per token; otherwise shapes as [`unpack`].
///
/// # Panics
/// When `low_bits` exceeds `bits`, `pre` and `post` differ in length, or as [`unpack`].
pub fn unpack_factorized(packed: &[u8], bits: u32, low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    assert_eq!(pre.len(), post.len(), "pre and post differ in length");
    assert!(low_bits <= bits, "low_bits {low_bits} exceeds bits {bits}");
    check_shape(pre.len(), bits, packed.len());
    Kernels::best(bits).split(packed, low_bits, pre, post);
}

/// The kernels that [`unpack`] and its siblings use on this machine: `avx2`, `neon` or `scalar`.
pub(crate) fn kernel_name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if avx2::is_available() {
        return "avx2";
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "scalar" }
}

fn check_shape(num_tokens: usize, bits: u32, num_bytes: usize) {
    assert!((1..=TOKEN_BITS_MAX).contains(&bits), "token width {bits} is not 1..={TOKEN_BITS_MAX}");
    assert_eq!(num_bytes, packed_bytes(num_tokens, bits), "{num_tokens} tokens of {bits} bits need another length");
}

impl Kernels {
    /// The fastest kernels that this machine can run. `bits` is 1..=24.
    #[inline]
    pub(crate) fn best(bits: u32) -> Kernels {
        #[cfg(target_arch = "x86_64")]
        if avx2::is_available() {
            return avx2::KERNELS[bits as usize - 1];
        }
        #[cfg(target_arch = "aarch64")]
        return neon::KERNELS[bits as usize - 1];
        #[allow(unreachable_code)] // on AArch64, which always has NEON
        Kernels::scalar(bits)
    }

    /// The portable kernels.
    pub(crate) fn scalar(bits: u32) -> Kernels {
        scalar::KERNELS[bits as usize - 1]
    }
}
