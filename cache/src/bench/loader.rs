//! How fast is it here: what `bench loader` measures.

use crate::bench::clock::Clock;
use crate::bench::synthetic::noise;
use crate::cancel;
use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::pack::pack;
use crate::read::cache::TokenCache;
use crate::read::loader::{Loader, LoaderConfig};
use crate::unpack::{kernel_name, unpack_i64};
use serde::Serialize;
use std::hint::black_box;
use std::sync::Arc;

/// Grids that one timing of the unpacking kernel unpacks.
const KERNEL_GRIDS: usize = 200_000;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LoaderBench {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Samples in one timing, rounded up to whole batches.
    pub samples: usize,
    /// Timings; the median of them is the result.
    pub repeats: usize,
    /// Selects the shuffle.
    pub seed: u64,
}

impl Default for LoaderBench {
    /// Batches of 256, 5 timings of 2,000,000 samples.
    fn default() -> Self {
        LoaderBench { batch_size: 256, samples: 2_000_000, repeats: 5, seed: 1 }
    }
}

/// What [`LoaderBench::run`] measured, on one thread. Rates are per second of one core: on Linux,
/// time in which another process had the core does not count.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoaderFigures {
    /// Median over the timings: grids per second as training reads them, in shuffled order, the low third of each token's bits
    /// and the others unpacked into `i64` batches of their own.
    pub grids_per_second: f64,
    /// Every timing, in order.
    pub grids_per_second_all: Vec<f64>,
    /// The median in grids per second of elapsed (wall-clock) time.
    pub grids_per_second_wall: f64,
    /// The shuffle alone: rows chosen per second.
    pub rows_chosen_per_second: f64,
    /// The unpacking alone, from the processor's first-level cache: grids per second.
    pub unpack_grids_per_second: f64,
    /// Which unpacking kernel: `avx2`, `neon` or `scalar`.
    pub kernel: &'static str,
    /// Tokens of a grid.
    pub num_tokens: usize,
    /// Bits of a token.
    pub bits: u32,
    /// Rows of the cache.
    pub rows: usize,
    /// The requested settings.
    pub settings: LoaderBench,
}

impl LoaderBench {
    /// Measures how fast one thread loads from `cache`, after one pass of warming up that is not counted.
    ///
    /// # Errors
    /// As [`Loader::new`]; [`CacheError::InvalidLoader`] when nothing is to be measured; [`CacheError::Cancelled`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tokengrid_cache::{LoaderBench, TokenCache, write_synthetic_cache};
    /// # fn main() -> Result<(), tokengrid_cache::CacheError> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let dir = &folder.path().join("cache");
    /// write_synthetic_cache(dir, 1000, 2)?;
    /// let bench = LoaderBench { samples: 10_000, ..LoaderBench::default() };
    /// let figures = bench.run(&Arc::new(TokenCache::open(dir)?))?;
    /// assert!(figures.grids_per_second > 0.0);
    /// # Ok(()) }
    /// ```
    pub fn run(self, cache: &Arc<TokenCache>) -> Result<LoaderFigures, CacheError> {
        for (field, value) in [("samples", self.samples), ("repeats", self.repeats)] {
            if value == 0 {
                return Err(CacheError::InvalidLoader { field, expected: "at least 1".into(), actual: "0".into() });
            }
        }
        let config = LoaderConfig { seed: self.seed, batch_size: self.batch_size, rank: 0, world_size: 1 };
        let mut loader = Loader::new(Arc::clone(cache), config)?;
        let grid = cache.grid();
        let low_bits = grid.bits / 3;
        let mut rows = Vec::new();
        let [mut low, mut high] = [(); 2].map(|()| vec![0i64; self.batch_size * grid.num_tokens()]);
        let mut timings = Vec::with_capacity(self.repeats);
        for repeat in 0..=self.repeats {
            let timing = self.rates(|| {
                cancel::check()?;
                loader.next_rows(&mut rows);
                cache.factorized_into(&rows, low_bits, black_box(&mut low), black_box(&mut high));
                Ok(())
            })?;
            if repeat > 0 {
                timings.push(timing);
            }
        }
        let (chosen, _) = self.rates(|| {
            loader.next_rows(black_box(&mut rows));
            Ok(())
        })?;
        let median = |mut rates: Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        };
        Ok(LoaderFigures {
            grids_per_second: median(timings.iter().map(|timing| timing.0).collect()),
            grids_per_second_all: timings.iter().map(|timing| timing.0).collect(),
            grids_per_second_wall: median(timings.iter().map(|timing| timing.1).collect()),
            rows_chosen_per_second: chosen,
            unpack_grids_per_second: unpack_rate(grid),
            kernel: kernel_name(),
            num_tokens: grid.num_tokens(),
            bits: grid.bits,
            rows: cache.num_rows(),
            settings: self,
        })
    }

    /// Samples per second when `next` takes one batch: on a core, and on the wall.
    fn rates(&self, mut next: impl FnMut() -> Result<(), CacheError>) -> Result<(f64, f64), CacheError> {
        let batches = self.samples.div_ceil(self.batch_size);
        let clock = Clock::start();
        (0..batches).try_for_each(|_| next())?;
        let (on_core, wall) = clock.secs();
        let samples = (batches * self.batch_size) as f64;
        Ok((samples / on_core, samples / wall))
    }
}

fn unpack_rate(grid: GridSpec) -> f64 {
    let tokens: Vec<u32> = (0..grid.num_tokens() as u64).map(|i| noise(i, grid.bits)).collect();
    let (mut packed, mut out) = (vec![0; grid.row_bytes()], vec![0i64; tokens.len()]);
    pack(&tokens, grid.bits, &mut packed);
    let clock = Clock::start();
    (0..KERNEL_GRIDS).for_each(|_| unpack_i64(black_box(&packed), grid.bits, black_box(&mut out)));
    KERNEL_GRIDS as f64 / clock.secs().0
}
