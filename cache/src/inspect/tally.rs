//! How often each code occurs, and where first: what one thread counts.

use crate::inspect::figures::distinct_and_entropy;
use crate::read::cache::TokenCache;
use crate::unpack::Kernels;

/// The place of a code that does not occur.
pub(super) const NOWHERE: u64 = u64::MAX;

/// A part with fewer tokens than a share of 1 in this many of the codes lists which codes occur in it, instead of going
/// through the table of all of them.
const SPARSE_SHARE: usize = 8;

/// What one thread counts.
pub(super) struct Tally {
    pub(super) kernels: Kernels,
    pub(super) tokens: Vec<u32>,
    pub(super) counts: Vec<u64>,
    /// Where each code occurs first; [`NOWHERE`] where it does not.
    pub(super) first: Vec<u64>,
    /// A bit for each code that has a first place. Far smaller than the places, and usually all that is looked at.
    pub(super) seen: Vec<u64>,
    /// Rows below this one were counted, and perhaps none after it.
    pub(super) next_row: usize,
    /// Whether the rows of the part lie after all rows before it, so that what was seen keeps its first place.
    pub(super) is_ascending: bool,
    pub(super) part: PartCounts,
}

/// How often each code occurs in a part.
pub(super) struct PartCounts {
    counts: Vec<u32>,
    /// Whether there are so few tokens that `touched` lists their codes.
    is_sparse: bool,
    touched: Vec<u32>,
}

impl Tally {
    pub(super) fn new(cache: &TokenCache) -> Tally {
        let grid = cache.grid();
        let codes = 1usize << grid.bits;
        Tally {
            kernels: Kernels::best(grid.bits),
            tokens: vec![0; grid.num_tokens()],
            counts: vec![0; codes],
            first: vec![NOWHERE; codes],
            seen: vec![0; codes.div_ceil(64)],
            next_row: 0,
            is_ascending: true,
            part: PartCounts { counts: vec![0; codes], is_sparse: true, touched: Vec::new() },
        }
    }

    /// Begins a part of `rows` rows, of which `first_row` is the first.
    pub(super) fn begin_part(&mut self, rows: usize, first_row: usize) {
        self.part.is_sparse = rows * self.tokens.len() < self.counts.len() / SPARSE_SHARE;
        self.is_ascending = first_row >= self.next_row;
    }

    pub(super) fn unpack(&mut self, packed: &[u8]) {
        self.kernels.narrow(packed, &mut self.tokens);
    }

    /// Counts the tokens of a row for the part.
    pub(super) fn count(&mut self, row: usize) {
        self.next_row = self.next_row.max(row + 1);
        let place = (row * self.tokens.len()) as u64;
        if self.is_ascending && !self.part.is_sparse {
            self.count_ascending(place);
        } else {
            self.count_anywhere(place);
        }
    }

    /// The fast way, with no branch that cannot be foreseen.
    fn count_ascending(&mut self, place: u64) {
        for (token, place) in self.tokens.iter().zip(place..) {
            let code = *token as usize;
            let (word, bit) = (&mut self.seen[code / 64], 1 << (code % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.first[code] = place;
            }
            self.part.counts[code] += 1;
        }
    }

    fn count_anywhere(&mut self, place: u64) {
        for (token, place) in self.tokens.iter().zip(place..) {
            let code = *token as usize;
            let count = &mut self.part.counts[code];
            if *count == 0 {
                self.part.touched.push(*token);
                self.seen[code / 64] |= 1 << (code % 64);
                self.first[code] = self.first[code].min(place);
            }
            *count += 1;
        }
    }

    /// Adds the part to the whole. Returns its distinct codes and their entropy.
    pub(super) fn end_part(&mut self) -> (u64, f64) {
        let found = self.part.distinct_and_entropy();
        self.part.add_to(&mut self.counts);
        self.part.clear();
        found
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.first.iter_mut().zip(&other.first).for_each(|(first, place)| *first = (*first).min(*place));
    }
}

impl PartCounts {
    fn distinct_and_entropy(&self) -> (u64, f64) {
        if self.is_sparse {
            return distinct_and_entropy(self.touched.iter().map(|code| self.counts[*code as usize].into()));
        }
        distinct_and_entropy(self.counts.iter().map(|count| u64::from(*count)))
    }

    pub(super) fn add_to(&self, sums: &mut [u64]) {
        if self.is_sparse {
            self.touched.iter().for_each(|code| sums[*code as usize] += u64::from(self.counts[*code as usize]));
        } else {
            sums.iter_mut().zip(&self.counts).for_each(|(sum, count)| *sum += u64::from(*count));
        }
    }

    fn clear(&mut self) {
        if self.is_sparse {
            self.touched.iter().for_each(|code| self.counts[*code as usize] = 0);
        } else {
            self.counts.fill(0);
        }
        self.touched.clear();
    }
}
