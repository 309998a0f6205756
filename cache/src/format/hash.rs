//! Hashes: of bytes, and of a set of rows in whatever order they were written.

use crate::permutation::mix;

/// BLAKE3 of `bytes`, 64 lower-case hex digits.
pub(crate) fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The first 64 bits of the BLAKE3 of `text`, as a little-endian integer: stands for a key where all keys would not fit in
/// memory.
pub(crate) fn short_hash(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

/// The hash of a multiset of rows: the sum of the row hashes as 256-bit little-endian integers, modulo 2^256.
///
/// A sum does not depend on the order of its terms, so the hash is the same however rows are spread over shards, ranks
/// and machines; and unlike an exclusive or it does not lose a row that is there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentSum([u64; 4]);

impl ContentSum {
    pub(crate) fn add_row(&mut self, hash: &[u8; 32]) {
        let (words, _) = hash.as_chunks::<8>();
        self.add(ContentSum([words[0], words[1], words[2], words[3]].map(u64::from_le_bytes)));
    }

    pub(crate) fn add(&mut self, other: ContentSum) {
        let mut carry = false;
        for (word, more) in self.0.iter_mut().zip(other.0) {
            let (partial, first) = word.overflowing_add(more);
            let (sum, second) = partial.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
    }

    /// 64 lower-case hex digits, the bytes of the integer from its least significant one.
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The inverse of [`ContentSum::to_hex`]; `None` for anything else.
    pub(crate) fn from_hex(text: &str) -> Option<ContentSum> {
        let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let word = |i: usize| u64::from_str_radix(text.get(16 * i..16 * (i + 1))?, 16).ok().map(u64::swap_bytes);
        is_hex.then(|| Some(ContentSum([word(0)?, word(1)?, word(2)?, word(3)?]))).flatten()
    }
}

/// A hash that is good at telling bytes apart, and no protection against somebody who makes some that collide. Sixteen bytes
/// at a time are multiplied and folded, as wyhash does.
pub(crate) fn quick_hash(bytes: &[u8]) -> u64 {
    const KEY: u64 = 0x9E37_79B9_7F4A_7C15;
    let step = |hash: u64, block: [u8; 16]| {
        let [low, high] = [u128::from_le_bytes(block) as u64, (u128::from_le_bytes(block) >> 64) as u64];
        let product = u128::from(low ^ KEY) * u128::from(high ^ hash);
        product as u64 ^ (product >> 64) as u64
    };
    let (blocks, rest) = bytes.as_chunks::<16>();
    let hash = blocks.iter().fold(mix(bytes.len() as u64), |hash, block| step(hash, *block));
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    mix(step(hash, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_bit_and_the_length_of_a_grid_count_in_its_hash() {
        let mut hashes = HashSet::new();
        for length in [1, 15, 16, 17, 576] {
            let mut grid = vec![0u8; length];
            assert!(hashes.insert(quick_hash(&grid)), "{length} zeros");
            for bit in 0..8 * length {
                grid[bit / 8] ^= 1 << (bit % 8);
                assert!(hashes.insert(quick_hash(&grid)), "bit {bit} of {length} bytes");
                grid[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
