//! Bits to tokens and back.
//!
//! Token i occupies bits `[i * bits, (i + 1) * bits)` of a packed row; bit n of a row is bit `n % 8` of byte `n / 8`
//! (least significant first); unused bits at the end are 0. Eight tokens of `B` bits fill exactly `B` bytes, so the
//! kernels work on groups of eight with every offset and shift a compile-time constant.

use crate::grid::TOKEN_BITS_MAX;

/// Bytes that `num_tokens` tokens of `bits` bits occupy: `ceil(num_tokens * bits / 8)`.
pub const fn packed_bytes(num_tokens: usize, bits: u32) -> usize {
    (num_tokens * bits as usize).div_ceil(8)
}

/// Packs `tokens` into `out`, least significant bit first.
///
/// `out` has exactly [`packed_bytes`]`(tokens.len(), bits)` bytes; all of them are written, spare bits as 0.
///
/// # Panics
/// When `bits` is not 1..=24, `out` has another length, or a token does not fit `bits` bits.
pub fn pack(tokens: &[u32], bits: u32, out: &mut [u8]) {
    check_shape(tokens.len(), bits, out.len());
    let mut seen = 0u32;
    let mut window = 0u64;
    let mut filled = 0u32;
    let mut position = 0;
    for &token in tokens {
        seen |= token;
        window |= u64::from(token) << filled;
        filled += bits;
        // Flushing 4 bytes at a time keeps `filled` below 32 + 24 bits, so the window never overflows.
        if filled >= 32 {
            out[position..position + 4].copy_from_slice(&(window as u32).to_le_bytes());
            position += 4;
            window >>= 32;
            filled -= 32;
        }
    }
    assert!(seen >> bits == 0, "a token does not fit {bits} bits");
    let rest = out.len() - position;
    out[position..].copy_from_slice(&window.to_le_bytes()[..rest]);
}

/// Unpacks a row into `u32` tokens, raster order.
///
/// `packed` has exactly [`packed_bytes`]`(out.len(), bits)` bytes. Spare bits at the end are ignored.
///
/// # Panics
/// When `bits` is not 1..=24 or the lengths do not fit.
pub fn unpack(packed: &[u8], bits: u32, out: &mut [u32]) {
    check_shape(out.len(), bits, packed.len());
    by_width!(bits, unpack_map(packed, out, |token| token));
}

/// Unpacks a row into `i64` tokens, the index type of tensor libraries. Shapes and panics as [`unpack`].
pub fn unpack_i64(packed: &[u8], bits: u32, out: &mut [i64]) {
    check_shape(out.len(), bits, packed.len());
    by_width!(bits, unpack_map(packed, out, i64::from));
}

/// Unpacks a row into the two sub-tokens of an asymmetrically factorized codebook:
/// `pre = token % 2^low_bits` and `post = token / 2^low_bits`.
///
/// `pre` and `post` have one element a token; otherwise shapes as [`unpack`].
///
/// # Panics
/// When `low_bits` exceeds `bits`, `pre` and `post` differ in length, or as [`unpack`].
pub fn unpack_factorized(packed: &[u8], bits: u32, low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
    assert_eq!(pre.len(), post.len(), "pre and post differ in length");
    assert!(low_bits <= bits, "low_bits {low_bits} exceeds bits {bits}");
    check_shape(pre.len(), bits, packed.len());
    by_width!(bits, unpack_split(packed, low_bits, pre, post));
}

fn check_shape(num_tokens: usize, bits: u32, num_bytes: usize) {
    assert!((1..=TOKEN_BITS_MAX).contains(&bits), "token width {bits} is not 1..={TOKEN_BITS_MAX}");
    assert_eq!(num_bytes, packed_bytes(num_tokens, bits), "{num_tokens} tokens of {bits} bits need another length");
}

/// Calls the kernel that was compiled for this width.
macro_rules! by_width {
    ($bits:expr, $kernel:ident($($argument:expr),*)) => {
        by_width!(@ $bits, $kernel, ($($argument),*), 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24)
    };
    (@ $bits:expr, $kernel:ident, $arguments:tt, $($width:literal)*) => {
        match $bits {
            $($width => by_width!(@@ $kernel, $width, $arguments),)*
            other => unreachable!("token width {other} was checked above"),
        }
    };
    (@@ $kernel:ident, $width:literal, ($($argument:expr),*)) => { $kernel::<$width, _>($($argument),*) };
}
use by_width;

/// Eight tokens of `B` bits from their `B` bytes.
#[inline(always)]
fn unpack_eight<const B: usize>(bytes: &[u8; B]) -> [u32; 8] {
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
fn unpack_tail<const B: usize>(rest: &[u8]) -> [u32; 8] {
    let mut padded = [0u8; B];
    padded[..rest.len()].copy_from_slice(rest);
    unpack_eight(&padded)
}

fn unpack_map<const B: usize, T>(packed: &[u8], out: &mut [T], map: impl Fn(u32) -> T) {
    let (groups, rest) = packed.split_at(out.len() / 8 * B);
    let (out, out_rest) = out.as_chunks_mut::<8>();
    for (bytes, slots) in groups.as_chunks::<B>().0.iter().zip(out) {
        *slots = unpack_eight(bytes).map(&map);
    }
    for (slot, token) in out_rest.iter_mut().zip(unpack_tail::<B>(rest)) {
        *slot = map(token);
    }
}

fn unpack_split<const B: usize, T: From<u32>>(packed: &[u8], low_bits: u32, pre: &mut [T], post: &mut [T]) {
    let low_mask = ((1u64 << low_bits) - 1) as u32;
    let low = |token: u32| T::from(token & low_mask);
    let high = |token: u32| T::from((u64::from(token) >> low_bits) as u32);
    let (groups, rest) = packed.split_at(pre.len() / 8 * B);
    let (pre, pre_rest) = pre.as_chunks_mut::<8>();
    let (post, post_rest) = post.as_chunks_mut::<8>();
    for ((bytes, pre), post) in groups.as_chunks::<B>().0.iter().zip(pre).zip(post) {
        let tokens = unpack_eight(bytes);
        *pre = tokens.map(low);
        *post = tokens.map(high);
    }
    let tail = unpack_tail::<B>(rest);
    for ((pre, post), token) in pre_rest.iter_mut().zip(post_rest).zip(tail) {
        *pre = low(token);
        *post = high(token);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, one bit at a time.
    fn pack_bitwise(tokens: &[u32], bits: u32) -> Vec<u8> {
        let mut out = vec![0u8; packed_bytes(tokens.len(), bits)];
        for (i, token) in tokens.iter().enumerate() {
            for bit in 0..bits as usize {
                let n = i * bits as usize + bit;
                out[n / 8] |= (((token >> bit) & 1) as u8) << (n % 8);
            }
        }
        out
    }

    fn unpack_bitwise(packed: &[u8], bits: u32, num_tokens: usize) -> Vec<u32> {
        let bit = |n: usize| u32::from(packed[n / 8] >> (n % 8) & 1);
        let token = |i: usize| (0..bits as usize).map(|b| bit(i * bits as usize + b) << b).sum();
        (0..num_tokens).map(token).collect()
    }

    /// Forever: changing these bytes changes the format.
    #[test]
    fn pinned_bytes() {
        let tokens = [0x2_5A5A, 0x1_2345, 0x3_FFFF, 0, 1];
        let mut out = [0xEEu8; 12];
        pack(&tokens, 18, &mut out);
        assert_eq!(out, [0x5A, 0x5A, 0x16, 0x8D, 0xF4, 0xFF, 0x3F, 0x00, 0x00, 0x01, 0x00, 0x00]);
    }

    fn row() -> impl Strategy<Value = (u32, Vec<u32>)> {
        (1..=TOKEN_BITS_MAX).prop_flat_map(|bits| (Just(bits), prop::collection::vec(0..1u32 << bits, 0..300)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_kernel_agrees_with_its_bitwise_twin((bits, tokens) in row(), split in 0u32..=24) {
            let mut packed = vec![0xEE; packed_bytes(tokens.len(), bits)];
            pack(&tokens, bits, &mut packed);
            prop_assert_eq!(&packed, &pack_bitwise(&tokens, bits));
            prop_assert_eq!(&tokens, &unpack_bitwise(&packed, bits, tokens.len()));

            let mut narrow = vec![u32::MAX; tokens.len()];
            unpack(&packed, bits, &mut narrow);
            prop_assert_eq!(&narrow, &tokens);

            let mut wide = vec![-1i64; tokens.len()];
            unpack_i64(&packed, bits, &mut wide);
            prop_assert!(wide.iter().zip(&tokens).all(|(a, b)| *a == i64::from(*b)));

            let low_bits = split.min(bits);
            let (mut pre, mut post) = (wide.clone(), wide.clone());
            unpack_factorized(&packed, bits, low_bits, &mut pre, &mut post);
            for ((token, pre), post) in tokens.iter().zip(&pre).zip(&post) {
                prop_assert_eq!(*pre, i64::from(*token) % (1 << low_bits));
                prop_assert_eq!(*post, i64::from(*token) >> low_bits);
            }
        }

        #[test]
        fn any_bytes_unpack_as_the_twin_says(bits in 1..=TOKEN_BITS_MAX, n in 0usize..80, noise: [u8; 240]) {
            let packed = &noise[..packed_bytes(n, bits)];
            let mut tokens = vec![0; n];
            unpack(packed, bits, &mut tokens);
            prop_assert_eq!(tokens, unpack_bitwise(packed, bits, n));
        }
    }

    #[test]
    fn six_and_twelve_bits() {
        let mut packed = [0u8; 3];
        pack(&[0b1010_1010_1010 << 6 | 0b01_0101], 18, &mut packed);
        let (mut pre, mut post) = ([0], [0]);
        unpack_factorized(&packed, 18, 6, &mut pre, &mut post);
        assert_eq!((pre[0], post[0]), (0b01_0101, 0b1010_1010_1010));
    }

    #[test]
    #[should_panic(expected = "does not fit 18 bits")]
    fn a_wide_token_is_a_bug_of_the_caller() {
        pack(&[1 << 18], 18, &mut [0; 3]);
    }
}
