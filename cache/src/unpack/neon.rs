//! Eight tokens at a time with NEON, which every AArch64 processor has: a 128-bit register for each half of a group.

use super::halves::Halves;
use super::kernels::{Kernels, kernel_table};
use super::scalar;
use crate::format::pack::TOKEN_BITS_MAX;
use std::arch::aarch64::*;

pub(super) static KERNELS: [Kernels; TOKEN_BITS_MAX as usize] = kernel_table!(narrow, wide, split);

fn narrow<const B: usize>(packed: &[u8], out: &mut [u32]) {
    let (vector, rest) = out.split_at_mut(vector_tokens::<B>(packed, out.len()));
    for (group, slots) in vector.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (half, slots) in slots.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let tokens = four::<B>(packed, group, half);
            // SAFETY: NEON is part of AArch64; `slots` has the 16 bytes that are stored.
            unsafe { vst1q_u32(slots.as_mut_ptr(), tokens) };
        }
    }
    scalar::narrow::<B>(&packed[vector.len() / 8 * B..], rest);
}

fn wide<const B: usize>(packed: &[u8], out: &mut [i64]) {
    let (vector, rest) = out.split_at_mut(vector_tokens::<B>(packed, out.len()));
    for (group, slots) in vector.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (half, slots) in slots.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            store_wide(four::<B>(packed, group, half), slots);
        }
    }
    scalar::wide::<B>(&packed[vector.len() / 8 * B..], rest);
}

fn split<const B: usize>(packed: &[u8], low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    let vector = vector_tokens::<B>(packed, pre.len());
    let ((pre, pre_rest), (post, post_rest)) = (pre.split_at_mut(vector), post.split_at_mut(vector));
    let halves = pre.as_chunks_mut::<4>().0.iter_mut().zip(post.as_chunks_mut::<4>().0);
    for (index, (pre, post)) in halves.enumerate() {
        let tokens = four::<B>(packed, index / 2, index % 2);
        // SAFETY: NEON is part of AArch64.
        let (low, high) = unsafe {
            let low_mask = vdupq_n_u32(((1u64 << low_bits) - 1) as u32);
            (vandq_u32(tokens, low_mask), vshlq_u32(tokens, vdupq_n_s32(-(low_bits as i32))))
        };
        store_wide(low, pre);
        store_wide(high, post);
    }
    scalar::split::<B>(&packed[vector / 8 * B..], low_bits, pre_rest, post_rest);
}

/// Tokens of a row, a multiple of eight, whose loads stay inside the row.
#[inline]
fn vector_tokens<const B: usize>(packed: &[u8], num_tokens: usize) -> usize {
    8 * Halves::<B>::safe_groups(packed.len(), num_tokens / 8)
}

/// The four tokens of a half of a group, one per lane.
#[inline(always)]
fn four<const B: usize>(packed: &[u8], group: usize, half: usize) -> uint32x4_t {
    let start = group * B + Halves::<B>::LOADS[half];
    let bytes = &packed[start..start + 16];
    let shifts = Halves::<B>::SHIFTS[half].map(|shift| -(shift as i32));
    // SAFETY: NEON is part of AArch64; all three arrays have the 16 bytes that are loaded. A table index of 0x80 is out
    // of range and gives zero; a shift by a negative number is a right shift.
    unsafe {
        let lanes = vqtbl1q_u8(vld1q_u8(bytes.as_ptr()), vld1q_u8(Halves::<B>::SHUFFLES[half].as_ptr()));
        let lanes = vshlq_u32(vreinterpretq_u32_u8(lanes), vld1q_s32(shifts.as_ptr()));
        vandq_u32(lanes, vdupq_n_u32(Halves::<B>::MASK))
    }
}

/// Four 32-bit lanes as 64-bit integers.
#[inline(always)]
fn store_wide(tokens: uint32x4_t, slots: &mut [i64; 4]) {
    let slots: *mut u64 = slots.as_mut_ptr().cast();
    // SAFETY: NEON is part of AArch64; `slots` has the 32 bytes that are stored.
    unsafe {
        vst1q_u64(slots, vmovl_u32(vget_low_u32(tokens)));
        vst1q_u64(slots.add(2), vmovl_high_u32(tokens));
    }
}
