//! Keyed permutations of 0..len without memory: a Feistel network with cycle walking.

/// Rounds of the network. Four make a strong pseudo-random permutation of a good round function (Luby and Rackoff 1988);
/// on domains of a few bits a round mixes little, and more rounds cost nothing there. Both numbers are even.
const ROUNDS: usize = 4;

const ROUNDS_SMALL: usize = 8;

/// Domains below this many bits are small.
const SMALL_BITS: u32 = 16;

/// Values that [`Permutation::apply_run`] works on at a time; their places fit a byte.
const RUN_BLOCK: usize = 64;

/// A permutation of `0..len` that a 64-bit key (of [`derive_key`]) selects. Construction and evaluation take constant
/// time.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    /// Widths of the two halves of the network's domain, the smallest power of two that holds `len` (at least 4).
    left_bits: u32,
    right_bits: u32,
    keys: [u64; ROUNDS_SMALL],
    rounds: usize,
}

impl Permutation {
    /// Of `0..len`; `len` is 1 ..= 2^62.
    pub fn new(key: u64, len: u64) -> Permutation {
        debug_assert!((1..=1 << 62).contains(&len));
        let bits = (64 - (len - 1).leading_zeros()).max(2);
        let keys = std::array::from_fn(|round| mix(key.wrapping_add((round as u64 + 1).wrapping_mul(GOLDEN))));
        let rounds = if bits < SMALL_BITS { ROUNDS_SMALL } else { ROUNDS };
        Permutation { len, left_bits: bits / 2, right_bits: bits - bits / 2, keys, rounds }
    }

    /// The position of `index` (below `len`).
    pub fn apply(&self, index: u64) -> u64 {
        debug_assert!(index < self.len);
        // The domain is less than twice `len` (or 4), so few steps lead back into the range; and as the network permutes
        // its domain, following it until then permutes the range.
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    /// [`Permutation::apply`] of `first`, `first + 1`, ... for all of `out`. One after the other, every value that has to
    /// walk on would be a mispredicted branch; here those of a block are gathered first and walk on together.
    pub(crate) fn apply_run(&self, first: u64, out: &mut [u64]) {
        for (block, values) in out.chunks_mut(RUN_BLOCK).enumerate() {
            let start = first + (block * RUN_BLOCK) as u64;
            debug_assert!(start + values.len() as u64 <= self.len);
            let mut outside = [0u8; RUN_BLOCK];
            let mut num_outside = 0;
            for (i, value) in values.iter_mut().enumerate() {
                *value = self.network(start + i as u64);
                outside[num_outside] = i as u8;
                num_outside += usize::from(*value >= self.len);
            }
            while num_outside > 0 {
                let mut still = 0;
                for next in 0..num_outside {
                    let i = outside[next];
                    let value = &mut values[usize::from(i)];
                    *value = self.network(*value);
                    outside[still] = i;
                    still += usize::from(*value >= self.len);
                }
                num_outside = still;
            }
        }
    }

    /// One pass through the network. The halves may differ by a bit; they trade places every round, so after an even
    /// number of rounds each is back.
    fn network(&self, value: u64) -> u64 {
        let (mut left_bits, mut right_bits) = (self.left_bits, self.right_bits);
        let mut left = value >> right_bits;
        let mut right = value & ((1 << right_bits) - 1);
        for key in &self.keys[..self.rounds] {
            let new_right = left ^ (mix(right ^ key) & ((1 << left_bits) - 1));
            left = right;
            right = new_right;
            (left_bits, right_bits) = (right_bits, left_bits);
        }
        left << right_bits | right
    }
}

/// Ranges up to this length are shuffled in place by [`shuffled_item`].
const SHUFFLE_MAX: u64 = 64;

/// Item `index` (below `len`) of `0..len` in an order that `key` selects: for short ranges a Fisher-Yates shuffle that
/// stops at the item, which is several times faster than a network that has to be built first.
pub(crate) fn shuffled_item(key: u64, len: u64, index: u64) -> u64 {
    if len > SHUFFLE_MAX {
        return Permutation::new(key, len).apply(index);
    }
    let mut items: [u8; SHUFFLE_MAX as usize] = std::array::from_fn(|i| i as u8);
    for place in 0..=index {
        // A random number times the items that are left, divided by 2^64: even to one part in 2^58.
        let random = u128::from(mix(key.wrapping_add(place.wrapping_mul(GOLDEN))));
        let other = place + ((random * u128::from(len - place)) >> 64) as u64;
        items.swap(place as usize, other as usize);
    }
    u64::from(items[index as usize])
}

/// 2^64 / the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection of 64 bits in which every input bit changes every output bit with probability near one half
/// (the finalizer of SplitMix64, Steele, Lea and Flood 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A key from a seed, what it is for, and a number such as the epoch's.
pub fn derive_key(seed: u64, purpose: u64, number: u64) -> u64 {
    mix(mix(mix(seed ^ GOLDEN).wrapping_add(purpose)).wrapping_add(number.wrapping_mul(GOLDEN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_permutes_every_small_range_and_some_large_ones() {
        for len in (1..200).chain([1000, 1023, 1024, 1025, 65_537, 1 << 17]) {
            let permutation = Permutation::new(derive_key(7, 0, len), len);
            let mut seen = vec![false; len as usize];
            for index in 0..len {
                let slot = &mut seen[permutation.apply(index) as usize];
                assert!(!*slot, "{len}: two indices are mapped to one");
                *slot = true;
            }
        }
    }

    #[test]
    fn a_run_is_its_single_values() {
        for len in [1, 2, 3, 5, 64, 65, 100, 129, 1000, 65_537, 1 << 40] {
            let permutation = Permutation::new(derive_key(9, 0, len), len);
            for (first, num) in [(0, 1), (0, 300), (1, 63), (len / 2, 200), (len - 1, 1)] {
                let mut run = vec![u64::MAX; num.min(len - first.min(len)) as usize];
                permutation.apply_run(first, &mut run);
                let single: Vec<_> = (0..run.len() as u64).map(|i| permutation.apply(first + i)).collect();
                assert_eq!(run, single, "{len}: {num} from {first}");
            }
        }
    }

    #[test]
    fn huge_ranges_stay_in_range() {
        for len in [1 << 62, (1 << 62) - 1, (1 << 40) + 1] {
            let permutation = Permutation::new(1, len);
            assert!((0..1000).all(|i| permutation.apply(len - 1 - i) < len));
        }
    }

    /// These numbers must never change: they determine the sample order of every resumed training run.
    #[test]
    fn pinned_order() {
        let permutation = Permutation::new(derive_key(42, 1, 3), 1_281_167);
        let order: Vec<u64> = (0..6).map(|i| permutation.apply(i)).collect();
        assert_eq!(order, [16_982, 272_385, 348_801, 173_717, 592_643, 1_077_173]);
    }

    /// The order of ten views must never change.
    #[test]
    fn pinned_views() {
        let order: Vec<u64> = (0..10).map(|i| shuffled_item(derive_key(42, 2, 3), 10, i)).collect();
        assert_eq!(order, [1, 2, 0, 9, 6, 3, 4, 8, 5, 7]);
    }

    #[test]
    fn short_ranges_are_shuffled_completely() {
        for len in 1..100 {
            for key in 0..20 {
                let mut items: Vec<u64> = (0..len).map(|i| shuffled_item(derive_key(key, 0, 0), len, i)).collect();
                items.sort_unstable();
                assert_eq!(items, (0..len).collect::<Vec<_>>());
            }
        }
    }

    /// Pearson's statistic of counts that should all be `expected`.
    fn chi_square(counts: &[u32], expected: f64) -> f64 {
        counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
    }

    /// Over many keys, every index is mapped to every position equally often. 4 standard deviations: fails once in 30,000 for a
    /// perfect shuffle, and the keys are fixed.
    #[test]
    fn every_place_is_equally_likely() {
        type Order = fn(u64, u64, u64) -> u64;
        let network: Order = |key, len, index| Permutation::new(key, len).apply(index);
        for (order, lens) in [(network, [2u64, 3, 5, 10, 16, 31, 100]), (shuffled_item, [2, 3, 4, 8, 10, 20, 64])] {
            for (len, index) in lens.into_iter().flat_map(|len| [0, len / 2, len - 1].map(|index| (len, index))) {
                let mut counts = vec![0u32; len as usize];
                for key in 0..2000 * len {
                    counts[order(derive_key(key, 0, 0), len, index) as usize] += 1;
                }
                let freedom = (len - 1) as f64;
                let limit = freedom + 4.0 * (2.0 * freedom).sqrt() + 8.0;
                let found = chi_square(&counts, 2000.0);
                assert!(found < limit, "len {len}, index {index}: {found} over {limit}");
            }
        }
    }

    /// Neighbours are separated: the distance between the positions of i and i + 1 is uniformly distributed.
    #[test]
    fn neighbours_are_independent() {
        let len = 10_007u64;
        let permutation = Permutation::new(derive_key(3, 1, 4), len);
        let mut counts = [0u32; 100];
        for i in 0..len - 1 {
            let distance = (permutation.apply(i + 1) + len - permutation.apply(i)) % len;
            counts[(distance * 100 / len) as usize] += 1;
        }
        let found = chi_square(&counts, (len - 1) as f64 / 100.0);
        assert!(found < 99.0 + 4.0 * 198f64.sqrt(), "{found}");
    }
}
