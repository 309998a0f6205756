//! Eight tokens at a time with AVX2: one 256-bit register holds both halves of a group.

use super::halves::Halves;
use super::kernels::{Kernels, kernel_table};
use super::scalar;
use crate::format::pack::TOKEN_BITS_MAX;
use std::arch::x86_64::*;

/// Only for a machine where [`is_available`] holds.
pub(super) static KERNELS: [Kernels; TOKEN_BITS_MAX as usize] = kernel_table!(narrow, wide, split);

/// Whether this machine can run the kernels.
#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

fn narrow<const B: usize>(packed: &[u8], out: &mut [u32]) {
    let (vector, rest) = out.split_at_mut(vector_tokens::<B>(packed, out.len()));
    debug_assert!(is_available());
    // SAFETY: `KERNELS` is only used where AVX2 was detected; `vector_tokens` allows for what the loads touch.
    unsafe { narrow_groups::<B>(packed, vector) };
    scalar::narrow::<B>(&packed[vector.len() / 8 * B..], rest);
}

fn wide<const B: usize>(packed: &[u8], out: &mut [i64]) {
    let (vector, rest) = out.split_at_mut(vector_tokens::<B>(packed, out.len()));
    debug_assert!(is_available());
    // SAFETY: `KERNELS` is only used where AVX2 was detected; `vector_tokens` allows for what the loads touch.
    unsafe { wide_groups::<B>(packed, vector) };
    scalar::wide::<B>(&packed[vector.len() / 8 * B..], rest);
}

fn split<const B: usize>(packed: &[u8], low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    let vector = vector_tokens::<B>(packed, pre.len());
    let ((pre, pre_rest), (post, post_rest)) = (pre.split_at_mut(vector), post.split_at_mut(vector));
    debug_assert!(is_available());
    // SAFETY: `KERNELS` is only used where AVX2 was detected; `vector_tokens` allows for what the loads touch.
    unsafe { split_groups::<B>(packed, low_bits, pre, post) };
    scalar::split::<B>(&packed[vector / 8 * B..], low_bits, pre_rest, post_rest);
}

/// Tokens of a row, a multiple of eight, whose loads stay inside the row.
#[inline]
fn vector_tokens<const B: usize>(packed: &[u8], num_tokens: usize) -> usize {
    8 * Halves::<B>::safe_groups(packed.len(), num_tokens / 8)
}

/// # Safety
/// AVX2 is there, and `packed` reaches [`Halves::safe_groups`] for `out.len() / 8` groups.
#[target_feature(enable = "avx2")]
unsafe fn narrow_groups<const B: usize>(packed: &[u8], out: &mut [u32]) {
    for (group, slots) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the group's loads; `slots` has the 32 bytes that are stored.
        unsafe { _mm256_storeu_si256(slots.as_mut_ptr().cast(), eight::<B>(packed.as_ptr().add(group * B))) };
    }
}

/// # Safety
/// As [`narrow_groups`].
#[target_feature(enable = "avx2")]
unsafe fn wide_groups<const B: usize>(packed: &[u8], out: &mut [i64]) {
    for (group, slots) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the group's loads.
        let tokens = unsafe { eight::<B>(packed.as_ptr().add(group * B)) };
        store_wide(tokens, slots);
    }
}

/// # Safety
/// As [`narrow_groups`], with `pre` and `post` of one length.
#[target_feature(enable = "avx2")]
unsafe fn split_groups<const B: usize>(packed: &[u8], low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    let low_mask = _mm256_set1_epi32(((1u64 << low_bits) - 1) as i32);
    let shift = _mm_cvtsi32_si128(low_bits as i32);
    let slots = pre.as_chunks_mut::<8>().0.iter_mut().zip(post.as_chunks_mut::<8>().0);
    for (group, (pre, post)) in slots.enumerate() {
        // SAFETY: the caller vouches for the group's loads.
        let tokens = unsafe { eight::<B>(packed.as_ptr().add(group * B)) };
        store_wide(_mm256_and_si256(tokens, low_mask), pre);
        store_wide(_mm256_srl_epi32(tokens, shift), post);
    }
}

/// The tokens of the group at `group`, one per lane.
///
/// # Safety
/// The 16 bytes at each of [`Halves::LOADS`] from `group` on may be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn eight<const B: usize>(group: *const u8) -> __m256i {
    let [low_at, high_at] = Halves::<B>::LOADS;
    // SAFETY: the caller vouches for both loads, which need no alignment.
    let (low, high) =
        unsafe { (_mm_loadu_si128(group.add(low_at).cast()), _mm_loadu_si128(group.add(high_at).cast())) };
    let bytes = _mm256_set_m128i(high, low);
    let (shuffles, shifts) = (const { &Halves::<B>::SHUFFLES }, const { &Halves::<B>::SHIFTS });
    // SAFETY: both are arrays of 32 bytes, and the loads need no alignment.
    let (shuffle, shifts) =
        unsafe { (_mm256_loadu_si256(shuffles.as_ptr().cast()), _mm256_loadu_si256(shifts.as_ptr().cast())) };
    let lanes = _mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, shuffle), shifts);
    _mm256_and_si256(lanes, _mm256_set1_epi32(Halves::<B>::MASK as i32))
}

/// Eight 32-bit lanes as 64-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
fn store_wide(tokens: __m256i, slots: &mut [i64; 8]) {
    let low = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(tokens));
    let high = _mm256_cvtepu32_epi64(_mm256_extracti128_si256::<1>(tokens));
    let slots = slots.as_mut_ptr();
    // SAFETY: `slots` has the 64 bytes that are stored.
    unsafe {
        _mm256_storeu_si256(slots.cast(), low);
        _mm256_storeu_si256(slots.add(4).cast(), high);
    }
}
