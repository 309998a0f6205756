//! Counter-based random numbers: a pure function of what they are for, so nothing has to be saved or replayed.

/// A stream of numbers named by a list of integers, for example (seed, step, sample).
#[derive(Debug, Clone)]
pub struct CounterRng {
    key: u64,
    counter: u64,
}

impl CounterRng {
    /// The stream of `name`. Different names give unrelated streams.
    pub fn new(name: &[u64]) -> CounterRng {
        let key = name
            .iter()
            .fold(0x243f_6a88_85a3_08d3, |key, &part| mix(key ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15))));
        CounterRng { key, counter: 0 }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0 .. n`; n must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_name() {
        let take = |name: &[u64]| -> Vec<u64> {
            let mut rng = CounterRng::new(name);
            (0..8).map(|_| rng.next_u64()).collect()
        };
        assert_eq!(take(&[1, 2]), take(&[1, 2]));
        assert_ne!(take(&[1, 2]), take(&[2, 1]));
        assert_ne!(take(&[0]), take(&[0, 0]));
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let mut rng = CounterRng::new(&[7]);
        let mut bins = [0u32; 10];
        (0..100_000).for_each(|_| bins[(rng.uniform() * 10.0) as usize] += 1);
        assert!(bins.iter().all(|&n| (9_500..10_500).contains(&n)), "{bins:?}");
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        CounterRng::new(&[3]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
