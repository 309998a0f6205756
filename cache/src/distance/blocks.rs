//! Pairs of grids that may be near each other, by the pigeonhole principle.
//!
//! A grid is cut into `distance + 1` blocks of bits. Two grids that differ in at most `distance` bits agree in at least
//! one block, since fewer bits than blocks differ. So only pairs are compared that agree in a block, and none that is
//! near is missed.

/// Bits that are read at a time from any place.
const PIECE_BITS: usize = 56;

/// Candidates that are held before equal ones are dropped.
const CANDIDATES_MAX: usize = 4 << 20;

/// Rows that an index may hold: their numbers have 16 bits.
pub(super) const INDEX_ROWS_MAX: usize = 1 << 16;

/// Memory for the tables of an index.
const TABLE_BYTES_MAX: usize = 96 << 20;

/// Where the blocks of a grid are.
#[derive(Debug)]
pub(super) struct Cut {
    /// First bits of the blocks, and the number of bits.
    bounds: Vec<usize>,
}

impl Cut {
    /// Blocks for grids of `num_bits` bits. `None` where they are so short that they tell few grids apart, and it costs less
    /// to compare all pairs.
    pub(super) fn new(num_bits: usize, distance: u32) -> Option<Cut> {
        let blocks = distance as usize + 1;
        let shortest = num_bits / blocks;
        if shortest < 64 && 4 * blocks as u64 > 1 << shortest {
            return None;
        }
        Some(Cut { bounds: (0..=blocks).map(|block| block * num_bits / blocks).collect() })
    }

    /// Rows of an index whose tables stay within their memory.
    pub(super) fn index_rows(&self) -> usize {
        (TABLE_BYTES_MAX / (self.num_blocks() * BYTES_PER_ENTRY)).clamp(1 << 10, INDEX_ROWS_MAX)
    }

    fn num_blocks(&self) -> usize {
        self.bounds.len() - 1
    }

    /// A number that is equal for equal blocks.
    fn hash(&self, block: usize, packed: &[u8]) -> u64 {
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let (mut hash, mut bit, end) = (0u64, self.bounds[block], self.bounds[block + 1]);
        while bit < end {
            let width = (end - bit).min(PIECE_BITS);
            hash = (hash.rotate_left(29) ^ bits_at(packed, bit, width)).wrapping_mul(FACTOR);
            bit += width;
        }
        hash
    }
}

/// `width` bits of a packed grid, at most [`PIECE_BITS`], from bit `first` on.
#[inline]
fn bits_at(packed: &[u8], first: usize, width: usize) -> u64 {
    let byte = first / 8;
    let word = match packed[byte..].first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [0; 8];
            word[..packed.len() - byte].copy_from_slice(&packed[byte..]);
            u64::from_le_bytes(word)
        }
    };
    word >> (first % 8) & ((1 << width) - 1)
}

/// An entry, and its share of the table of buckets.
const BYTES_PER_ENTRY: usize = 8;

/// The rows that have a given block.
#[derive(Debug)]
struct Table {
    /// Bucket b has `entries[starts[b]..starts[b + 1]]`.
    starts: Vec<u32>,
    /// The row in the lower half, in the upper half more of its hash than the bucket tells.
    entries: Vec<u32>,
    bucket_bits: u32,
}

impl Table {
    fn of(hashes: &[u64]) -> Table {
        // About two rows per bucket.
        let bucket_bits = hashes.len().next_power_of_two().ilog2().saturating_sub(1).max(1);
        let mut table = Table { starts: vec![0; (1 << bucket_bits) + 1], entries: vec![0; hashes.len()], bucket_bits };
        for hash in hashes {
            let bucket = table.bucket(*hash);
            table.starts[bucket + 1] += 1;
        }
        (1..table.starts.len()).for_each(|bucket| table.starts[bucket] += table.starts[bucket - 1]);
        let mut next = table.starts.clone();
        for (row, hash) in (0u32..).zip(hashes) {
            let slot = &mut next[table.bucket(*hash)];
            table.entries[*slot as usize] = tag(*hash) << 16 | row;
            *slot += 1;
        }
        table
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        (hash >> (64 - self.bucket_bits)) as usize
    }

    /// The rows whose block has this hash, and perhaps some others.
    #[inline]
    fn rows(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (bucket, tag) = (self.bucket(hash), tag(hash));
        let entries = &self.entries[self.starts[bucket] as usize..self.starts[bucket + 1] as usize];
        entries.iter().filter(move |entry| **entry >> 16 == tag).map(|entry| entry & 0xFFFF)
    }
}

/// Bits of a hash behind those of the bucket, of which there are at most 16.
#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & 0xFFFF
}

/// The rows of one cache, or some of them, by each of their blocks.
#[derive(Debug)]
pub(super) struct BlockIndex<'a> {
    cut: &'a Cut,
    tables: Vec<Table>,
}

impl BlockIndex<'_> {
    /// Of `packed` grids of `row_bytes` bytes each, at most [`INDEX_ROWS_MAX`] of them.
    pub(super) fn new<'a>(cut: &'a Cut, packed: &[u8], row_bytes: usize) -> BlockIndex<'a> {
        let table = |block| {
            let hashes: Vec<u64> = packed.chunks_exact(row_bytes).map(|row| cut.hash(block, row)).collect();
            Table::of(&hashes)
        };
        BlockIndex { cut, tables: (0..cut.num_blocks()).map(table).collect() }
    }

    /// Fills `pairs` with those of `others` (at most 2^16 packed grids) and rows of the index that may be near each other,
    /// the former in the upper half, each pair once. Returns whether that worked: of rows that are much alike there may be so
    /// many that it costs less to compare all.
    pub(super) fn candidates(&self, others: &[u8], row_bytes: usize, pairs: &mut Vec<u32>) -> bool {
        pairs.clear();
        for (block, table) in self.tables.iter().enumerate() {
            for (other, packed) in (0u32..).zip(others.chunks_exact(row_bytes)) {
                pairs.extend(table.rows(self.cut.hash(block, packed)).map(|row| other << 16 | row));
                if pairs.len() > CANDIDATES_MAX {
                    drop_equal(pairs);
                    if pairs.len() > CANDIDATES_MAX / 2 {
                        return false;
                    }
                }
            }
        }
        drop_equal(pairs);
        true
    }
}

fn drop_equal(pairs: &mut Vec<u32>) {
    pairs.sort_unstable();
    pairs.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_cover_a_grid_and_short_ones_are_refused() {
        for (num_bits, distance, blocks) in [(4608, 0, 1), (4608, 200, 201), (4608, 400, 401), (288, 20, 21)] {
            let cut = Cut::new(num_bits, distance).expect("long enough");
            assert_eq!((cut.num_blocks(), cut.bounds[0], cut.bounds[blocks]), (blocks, 0, num_bits));
            assert!(cut.bounds.is_sorted_by(|a, b| a < b));
        }
        assert!(Cut::new(4608, 600).is_none() && Cut::new(288, 200).is_none() && Cut::new(1, 1).is_none());
    }

    proptest! {
        #[test]
        fn every_bit_of_a_block_and_no_other_counts(
            grid in prop::collection::vec(any::<u8>(), 36), distance in 0u32..20, bit in 0usize..288
        ) {
            let cut = Cut::new(288, distance).expect("long enough");
            let mut other = grid.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            for block in 0..cut.num_blocks() {
                let has_bit = (cut.bounds[block]..cut.bounds[block + 1]).contains(&bit);
                prop_assert_eq!(cut.hash(block, &grid) != cut.hash(block, &other), has_bit);
            }
        }
    }
}
