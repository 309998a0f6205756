//! Statistics that follow from the counts of codes: bits and entropies need no second pass over the tokens.

use std::collections::BTreeMap;

/// For every bit of a token, from the least significant one: in how many tokens it is 1, alone and together with each
/// other bit.
pub(super) struct Ones {
    /// `[bits]`.
    pub alone: Vec<u64>,
    /// `[bits, bits]`, symmetric; the diagonal is `alone`.
    pub together: Vec<Vec<u64>>,
}

impl Ones {
    /// `counts[code]` is how often each of 2^bits codes occurs.
    pub(super) fn of(counts: &[u64]) -> Ones {
        let bits = counts.len().trailing_zeros() as usize;
        // For every mask, in how many tokens all its bits are 1: one sweep over the table per bit.
        let mut supersets = counts.to_vec();
        for bit in 0..bits {
            for pair in supersets.chunks_exact_mut(2 << bit) {
                let (without, with) = pair.split_at_mut(1 << bit);
                without.iter_mut().zip(with).for_each(|(without, with)| *without += *with);
            }
        }
        let together = |i: usize, j: usize| supersets[1 << i | 1 << j];
        Ones {
            alone: (0..bits).map(|bit| together(bit, bit)).collect(),
            together: (0..bits).map(|i| (0..bits).map(|j| together(i, j)).collect()).collect(),
        }
    }

    /// Bits that have the same value in all of `tokens` tokens.
    pub(super) fn dead(&self, tokens: u64) -> Vec<u32> {
        let is_dead = |ones: u64| tokens > 0 && (ones == 0 || ones == tokens);
        let bits = 0..self.alone.len() as u32;
        bits.filter(|&bit| is_dead(self.alone[bit as usize])).collect()
    }

    /// Pearson's correlation of every two bits over `tokens` tokens, -1 to 1; `None` where one of them is dead.
    pub(super) fn correlation(&self, tokens: u64) -> Vec<Vec<Option<f64>>> {
        let share = |count: u64| count as f64 / tokens.max(1) as f64;
        let deviation = |bit: usize| (share(self.alone[bit]) * (1.0 - share(self.alone[bit]))).sqrt();
        let of = |i: usize, j: usize| {
            let spread = deviation(i) * deviation(j);
            let covariance = share(self.together[i][j]) - share(self.alone[i]) * share(self.alone[j]);
            (spread > 0.0).then(|| if i == j { 1.0 } else { (covariance / spread).clamp(-1.0, 1.0) })
        };
        let bits = self.alone.len();
        (0..bits).map(|i| (0..bits).map(|j| of(i, j)).collect()).collect()
    }
}

/// Counts below this one are collected in a table.
const SMALL_COUNTS: usize = 1024;

/// Tables that are filled alternately: an increment need not wait for the one before, which usually is of the same small count.
const TABLES: usize = 4;

/// How many counts are not 0, and the entropy, in bits, of the distribution that they describe. The sum goes over equal
/// counts together, smallest first, so that it has the same bits for any order of the counts.
pub(super) fn distinct_and_entropy(counts: impl Iterator<Item = u64>) -> (u64, f64) {
    let mut tables = [[0u32; SMALL_COUNTS]; TABLES];
    let mut large = BTreeMap::new();
    let mut total = 0;
    for (i, count) in counts.enumerate() {
        total += count;
        match tables[i % TABLES].get_mut(count as usize) {
            Some(codes) => *codes += 1,
            None => *large.entry(count).or_insert(0u64) += 1,
        }
    }
    let codes_with = |count: usize| tables.iter().map(|table| u64::from(table[count])).sum::<u64>();
    let small = (1..SMALL_COUNTS).map(|count| (count as u64, codes_with(count))).filter(|(_, codes)| *codes > 0);
    let (mut distinct, mut entropy) = (0, 0.0);
    for (count, codes) in small.chain(large) {
        let share = count as f64 / total as f64;
        distinct += codes;
        entropy += -share * share.log2() * codes as f64;
    }
    (distinct, entropy)
}

/// For n = 0, 1, ...: codes that occur 0 times, once, and from 2^(n-1) to 2^n - 1 times.
pub(super) fn histogram(counts: &[u64]) -> Vec<u64> {
    let mut histogram = Vec::new();
    for count in counts {
        let bin = (64 - count.leading_zeros()) as usize;
        if histogram.len() <= bin {
            histogram.resize(bin + 1, 0);
        }
        histogram[bin] += 1;
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_counted_by_masks_are_those_counted_one_by_one(counts in prop::collection::vec(0u64..50, 32)) {
            let ones = Ones::of(&counts);
            for i in 0..5 {
                for j in 0..5 {
                    let both = |code: &usize| code >> i & 1 == 1 && code >> j & 1 == 1;
                    let expected: u64 = (0..32).filter(both).map(|code| counts[code]).sum();
                    prop_assert_eq!(ones.together[i][j], expected);
                }
            }
        }
    }

    #[test]
    fn correlation_is_that_of_the_definition() {
        // Bits 0 and 1 are always equal, bit 2 is independent of them, bit 3 is dead.
        let mut counts = [0u64; 16];
        [0b000, 0b011, 0b100, 0b111].iter().for_each(|code| counts[*code] = 5);
        let ones = Ones::of(&counts);
        let found = ones.correlation(20);
        assert_eq!(ones.dead(20), [3]);
        assert_eq!((found[0][1], found[1][0], found[0][2]), (Some(1.0), Some(1.0), Some(0.0)));
        assert_eq!((found[2][2], found[0][3], found[3][3]), (Some(1.0), None, None));
    }

    #[test]
    fn entropy_of_four_equal_codes_is_two_bits() {
        assert_eq!(distinct_and_entropy([5, 5, 0, 5, 5].into_iter()), (4, 2.0));
        assert_eq!(distinct_and_entropy([5000, 5000].into_iter()), (2, 1.0));
        assert_eq!(distinct_and_entropy(std::iter::empty()), (0, 0.0));
        assert_eq!(histogram(&[0, 1, 2, 3, 4]), [1, 1, 2, 1]);
    }
}
