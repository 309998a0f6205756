//! Hashes: of bytes, of a row, and of a set of rows in whatever order they were written.

use crate::grid::GridSpec;
use crate::group::Row;

/// Separates row hashes from every other use of BLAKE3.
const ROW_DOMAIN: &[u8] = b"tokengrid.row.v1";

/// BLAKE3 of `bytes`, 64 lower-case hex digits.
pub(crate) fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The hash of one row: BLAKE3 over the domain, the grid, and every field, lengths first, integers little-endian. The
/// split comes last, and only where there is one.
pub(crate) fn row_hash(grid: GridSpec, split: &str, row: &Row<'_>, packed: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ROW_DOMAIN);
    for number in [grid.height, grid.width, grid.bits, row.key.len() as u32] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(row.key.as_bytes());
    hasher.update(&row.view.to_le_bytes());
    for number in [row.label, row.crop_x, row.crop_y] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&[u8::from(row.flip)]);
    hasher.update(&(packed.len() as u32).to_le_bytes());
    hasher.update(packed);
    hasher.update(split.as_bytes());
    *hasher.finalize().as_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: GridSpec = GridSpec { height: 1, width: 2, bits: 18 };

    fn row<'a>(key: &'a str, tokens: &'a [u32]) -> Row<'a> {
        Row { tokens, label: 7, key, view: 1, crop_x: 3, crop_y: -4, flip: true }
    }

    fn hash_of(row: &Row<'_>) -> [u8; 32] {
        let mut packed = [0; 5];
        crate::pack::pack(row.tokens, 18, &mut packed);
        row_hash(GRID, "", row, &packed)
    }

    /// Forever: another value here means that every cache ever written has another content hash.
    #[test]
    fn pinned_content_hash() {
        let mut sum = ContentSum::default();
        sum.add_row(&hash_of(&row("n01440764/n01440764_10026.JPEG", &[0, 262_143])));
        sum.add_row(&hash_of(&row("b", &[131_072, 1])));
        assert_eq!(sum.to_hex(), "d1c19e70465cf27b4523f19001d66188c48dcb03312246fda0e4b6c7de10c8b0");
    }

    #[test]
    fn every_field_counts() {
        let plain = row("key", &[1, 2]);
        let changed = [
            Row { key: "kez", ..plain },
            Row { key: "key\0", ..plain },
            Row { tokens: &[2, 1], ..plain },
            Row { label: 8, ..plain },
            Row { view: 0, ..plain },
            Row { crop_x: -4, crop_y: 3, ..plain },
            Row { flip: false, ..plain },
        ];
        for other in &changed {
            assert_ne!(hash_of(&plain), hash_of(other), "{other:?}");
        }
        assert_ne!(row_hash(GRID, "val", &plain, &[0; 5]), row_hash(GRID, "", &plain, &[0; 5]));
    }

    #[test]
    fn order_does_not_matter_and_repeats_do() {
        let hashes = [[0xFF; 32], [0x01; 32], hash_of(&row("a", &[0, 0]))];
        let sum = |order: &[usize]| {
            let mut sum = ContentSum::default();
            order.iter().for_each(|i| sum.add_row(&hashes[*i]));
            sum
        };
        assert_eq!(sum(&[0, 1, 2]), sum(&[2, 0, 1]));
        assert_ne!(sum(&[0, 1, 2]), sum(&[0, 1, 2, 2, 2]));
        assert_ne!(sum(&[0, 1]), sum(&[0, 1, 2, 2]));
        assert_eq!(ContentSum::from_hex(&sum(&[0, 1, 2]).to_hex()), Some(sum(&[0, 1, 2])));
        for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(ContentSum::from_hex(text), None, "{text}");
        }
    }
}
