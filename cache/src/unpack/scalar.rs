//! The kernels without SIMD: the definition that the others must equal, and their end of a row.

use super::kernels::{Kernels, kernel_table};
use crate::format::pack::TOKEN_BITS_MAX;

pub(super) static KERNELS: [Kernels; TOKEN_BITS_MAX as usize] = kernel_table!(narrow, wide, split);

pub(super) fn narrow<const B: usize>(packed: &[u8], out: &mut [u32]) {
    map::<B, u32>(packed, out, |token| token);
}

pub(super) fn wide<const B: usize>(packed: &[u8], out: &mut [i64]) {
    map::<B, i64>(packed, out, i64::from);
}

pub(super) fn split<const B: usize>(packed: &[u8], low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    let low_mask = ((1u64 << low_bits) - 1) as u32;
    let low = |token: u32| i64::from(token & low_mask);
    let high = |token: u32| i64::from(token) >> low_bits;
    let (groups, rest) = packed.split_at(pre.len() / 8 * B);
    let (pre, pre_rest) = pre.as_chunks_mut::<8>();
    let (post, post_rest) = post.as_chunks_mut::<8>();
    for ((bytes, pre), post) in groups.as_chunks::<B>().0.iter().zip(pre).zip(post) {
        let tokens = eight(bytes);
        *pre = tokens.map(low);
        *post = tokens.map(high);
    }
    for ((pre, post), token) in pre_rest.iter_mut().zip(post_rest).zip(tail::<B>(rest)) {
        *pre = low(token);
        *post = high(token);
    }
}

fn map<const B: usize, T>(packed: &[u8], out: &mut [T], map: impl Fn(u32) -> T) {
    let (groups, rest) = packed.split_at(out.len() / 8 * B);
    let (out, out_rest) = out.as_chunks_mut::<8>();
    for (bytes, slots) in groups.as_chunks::<B>().0.iter().zip(out) {
        *slots = eight(bytes).map(&map);
    }
    for (slot, token) in out_rest.iter_mut().zip(tail::<B>(rest)) {
        *slot = map(token);
    }
}

/// Eight tokens of `B` bits from their `B` bytes.
#[inline(always)]
fn eight<const B: usize>(bytes: &[u8; B]) -> [u32; 8] {
    let mask = (1u32 << B) - 1;
    std::array::from_fn(|k| {
        // The load is moved back where it would pass the end of the group, and the shift grows by as much: a token
        // ends at bit (k + 1) * B of 8 * B, so it always lies inside the 32 bits that were loaded.
        let first_bit = k * B;
        let byte = if B < 4 { 0 } else { (first_bit / 8).min(B - 4) };
        let mut word = [0u8; 4];
        let width = B.min(4);
        word[..width].copy_from_slice(&bytes[byte..byte + width]);
        (u32::from_le_bytes(word) >> (first_bit - 8 * byte)) & mask
    })
}

/// The last tokens of a row, fewer than eight, from a zero-filled copy of their bytes.
fn tail<const B: usize>(rest: &[u8]) -> [u32; 8] {
    let mut padded = [0u8; B];
    padded[..rest.len()].copy_from_slice(rest);
    eight(&padded)
}
