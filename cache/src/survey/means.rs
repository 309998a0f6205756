//! How often each bit is set in the rows of a class, and how far a row is from that.

use super::byte_sums::ByteSums;

/// Rows that are summed in bytes before they are added to wider sums.
const ROWS_IN_BYTES: usize = 255;

/// Counts set bits of packed grids: eight bits of each byte at a time, as eight bytes of a word.
pub(super) struct BitCounts {
    /// One word per byte of a grid.
    narrow: Vec<u64>,
    rows_in_narrow: usize,
    /// One per bit.
    counts: Vec<u32>,
    rows: u64,
    spread: [u64; 256],
}

impl BitCounts {
    pub(super) fn new(row_bytes: usize) -> BitCounts {
        // Each bit of a byte's value in a byte of its own.
        let spread = |value: u64| (0..8).map(|bit| (value >> bit & 1) << (8 * bit)).sum();
        BitCounts {
            narrow: vec![0; row_bytes],
            rows_in_narrow: 0,
            counts: vec![0; 8 * row_bytes],
            rows: 0,
            spread: std::array::from_fn(|value| spread(value as u64)),
        }
    }

    pub(super) fn add(&mut self, grid: &[u8]) {
        for (word, byte) in self.narrow.iter_mut().zip(grid) {
            *word += self.spread[usize::from(*byte)];
        }
        self.rows += 1;
        self.rows_in_narrow += 1;
        if self.rows_in_narrow == ROWS_IN_BYTES {
            self.widen();
        }
    }

    fn widen(&mut self) {
        for (counts, word) in self.counts.chunks_exact_mut(8).zip(&mut self.narrow) {
            counts.iter_mut().zip(word.to_le_bytes()).for_each(|(count, more)| *count += u32::from(more));
            *word = 0;
        }
        self.rows_in_narrow = 0;
    }

    /// Adds what was counted here to `sum`, and begins anew.
    pub(super) fn add_to(&mut self, sum: &mut ClassCounts) {
        self.widen();
        sum.counts.resize(self.counts.len(), 0);
        sum.counts.iter_mut().zip(&mut self.counts).for_each(|(sum, count)| *sum += std::mem::take(count));
        sum.rows += std::mem::take(&mut self.rows);
    }
}

/// Set bits in all rows of a class.
#[derive(Default)]
pub(super) struct ClassCounts {
    counts: Vec<u32>,
    rows: u64,
}

/// How far rows of a class are from its other rows, on average.
pub(super) struct MeanDistance {
    sums: ByteSums<1>,
    /// The distance of a grid of zeros from the mean.
    of_zeros: f32,
    /// A row does not differ from itself, and is not one of the others.
    without_itself: f32,
}

impl ClassCounts {
    /// A bit that is 1 in a share p of the rows differs from a 1 in a share 1 - p of them, and from a 0 in a share p.
    pub(super) fn distance(&self) -> MeanDistance {
        let share = |count: &u32| *count as f32 / self.rows.max(1) as f32;
        let weights: Vec<[f32; 1]> = self.counts.iter().map(|count| [1.0 - 2.0 * share(count)]).collect();
        let without_itself = self.rows as f32 / self.rows.saturating_sub(1).max(1) as f32;
        MeanDistance { sums: ByteSums::new(&weights), of_zeros: self.counts.iter().map(share).sum(), without_itself }
    }
}

impl MeanDistance {
    /// In bits.
    pub(super) fn of(&self, grid: &[u8]) -> f32 {
        let [ones] = self.sums.of(grid);
        (self.of_zeros + ones) * self.without_itself
    }
}
