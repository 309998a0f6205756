//! Every kernel of this machine, and the scalar ones, against the definition, one bit at a time.

use super::*;
use crate::format::pack::pack;
use proptest::prelude::*;

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

/// All three outputs of `kernels` for a row.
fn check(kernels: Kernels, packed: &[u8], low_bits: u32, expected: &[u32]) {
    let n = expected.len();
    let (mut narrow, mut wide, mut pre, mut post) = (vec![u32::MAX; n], vec![-1i64; n], vec![-1; n], vec![-1; n]);
    kernels.narrow(packed, &mut narrow);
    kernels.wide(packed, &mut wide);
    kernels.split(packed, low_bits, &mut pre, &mut post);
    assert_eq!(narrow, expected);
    for (i, token) in expected.iter().enumerate() {
        let token = i64::from(*token);
        assert_eq!((wide[i], pre[i], post[i]), (token, token % (1 << low_bits), token >> low_bits));
    }
}

/// Every width with every length up to six groups: the end of a row limits how far the last loads may read. The row's
/// bytes are a whole allocation, so that a checker of memory (Miri, ASan) sees any read after them.
#[test]
fn every_width_and_every_end_of_a_row() {
    for bits in 1..=TOKEN_BITS_MAX {
        for n in 0..=48usize {
            let noise = |i: usize| (i as u32 + 1).wrapping_mul(0x9E37_79B9).rotate_left(7) as u8;
            let packed: Box<[u8]> = (0..packed_bytes(n, bits)).map(|i| noise(i + n)).collect();
            let expected = unpack_bitwise(&packed, bits, n);
            for low_bits in [0, 1, bits / 3, bits] {
                check(Kernels::best(bits), &packed, low_bits, &expected);
                check(Kernels::scalar(bits), &packed, low_bits, &expected);
            }
        }
    }
}

fn row() -> impl Strategy<Value = (u32, Vec<u32>)> {
    (1..=TOKEN_BITS_MAX).prop_flat_map(|bits| (Just(bits), prop::collection::vec(0..1u32 << bits, 0..300)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2000 }))]

    #[test]
    fn every_kernel_agrees_with_the_scalar_kernels((bits, tokens) in row(), split in 0u32..=24) {
        let mut packed = vec![0xEE; packed_bytes(tokens.len(), bits)];
        pack(&tokens, bits, &mut packed);
        prop_assert_eq!(&packed, &pack_bitwise(&tokens, bits));
        prop_assert_eq!(&tokens, &unpack_bitwise(&packed, bits, tokens.len()));
        check(Kernels::best(bits), &packed, split.min(bits), &tokens);
        check(Kernels::scalar(bits), &packed, split.min(bits), &tokens);
    }

    #[test]
    fn any_bytes_unpack_as_by_the_scalar_kernel(bits in 1..=TOKEN_BITS_MAX, n in 0usize..80, noise: [u8; 240]) {
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

/// A row that ends where a mapped file does, on the last byte before an inaccessible page.
#[cfg(target_os = "linux")]
#[test]
fn nothing_behind_a_mapped_row_is_read() {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = vec![0xA5u8; 4096];
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    // Two pages are mapped and the file has one: a read of the second is a fault.
    // SAFETY: no other code uses the file.
    let map = unsafe { memmap2::MmapOptions::new().len(8192).map(&file) }.unwrap();
    for bits in 1..=TOKEN_BITS_MAX {
        for n in [1, 7, 8, 9, 16, 256] {
            let packed = &map[4096 - packed_bytes(n, bits)..4096];
            check(Kernels::best(bits), packed, bits / 2, &unpack_bitwise(packed, bits, n));
        }
    }
}
