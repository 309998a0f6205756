//! All figures of a cache, from one pass over all rows.

use crate::error::CacheError;
use crate::inspect::classes::ClassIndex;
use crate::inspect::duplicates::SameGrid;
use crate::inspect::figures::{Ones, distinct_and_entropy, histogram};
use crate::inspect::near::Sketcher;
use crate::inspect::pass::Passed;
use crate::inspect::stats::{CacheStats, ClassRows};
use crate::inspect::tally::NOWHERE;
use crate::inspect::{conflicts, duplicates, near, pass};
use crate::parallel::num_threads;
use crate::read::cache::TokenCache;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// Raised when the same cache would give other figures, or the file another form: older files are then made again.
pub(super) const INSPECTION_VERSION: u32 = 2;

/// What one pass over all rows finds: [`CacheStats`], and the tables that it sums up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inspection {
    /// Version of this summary.
    pub version: u32,
    /// Checksum of the manifest of the cache that it is of.
    pub manifest: String,
    /// Content hash of that cache.
    pub content_hash: String,
    /// The figures.
    pub stats: CacheStats,
    /// How often each code occurs: 2^bits numbers.
    pub code_counts: Vec<u64>,
    /// Where each code occurs first, as `row * tokens of a grid + position`; `None` where it does not.
    pub code_first: Vec<Option<u64>>,
    /// Rows with the grid of an earlier row: those of other images first, in row order; a long list is cut.
    pub duplicates: Vec<SameGrid>,
}

impl Inspection {
    /// Reads every row of `cache`, on all cores, or as many as `threads` says. `progress` is called with the rows done and
    /// all rows; `cancel` ends the work early.
    ///
    /// Memory: about 24 bytes per code and thread, 4 bytes per row, and for what near-duplicates are looked for by at most
    /// 104 MiB (64 bytes per image), or 4 bytes per image where that is more; while rows are counted half of that, and 4 bytes
    /// per image.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`]; as [`TokenCache::meta`] where keys, and as [`TokenCache::read_packed`] where tokens are damaged.
    pub fn of(
        cache: &TokenCache,
        threads: Option<usize>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Inspection, CacheError> {
        let threads = threads.unwrap_or_else(num_threads).max(1);
        let index = ClassIndex::of(cache);
        let sketcher = Sketcher::new(cache.grid(), cache.num_images());
        // Every row is counted, and some or all of it is read again for each further band and for the names of classes.
        let passes = (sketcher.passes() + usize::from(conflicts::are_looked_for(cache))).max(1) as u64;
        let (mut done, total) = (0, cache.num_rows() as u64);
        let mut report = |rows: u64| {
            done += rows;
            progress((done / passes).min(total), total);
        };
        let passed = pass::run(cache, &index, &sketcher, threads, cancel, &mut report)?;
        let figures = figures_of(cache, &index, &passed);
        let Passed { counts, first, hashes, sketches, .. } = passed;
        // What is done with is not held while the rest needs memory of its own.
        drop(index);
        let near_duplicates = near::find(cache, &sketcher, sketches, &hashes, (threads, cancel), &mut report)?;
        let (duplicates, listed) = duplicates::find(cache, &hashes, cancel)?;
        drop(hashes);
        let label_conflicts = conflicts::find(cache, threads, cancel, &mut report)?;
        let stats = CacheStats { duplicates, near_duplicates, label_conflicts, ..figures };
        Ok(Inspection {
            version: INSPECTION_VERSION,
            manifest: cache.manifest().checksum.clone(),
            content_hash: cache.content_hash().to_owned(),
            stats,
            code_counts: counts,
            code_first: first.iter().map(|place| (*place != NOWHERE).then_some(*place)).collect(),
            duplicates: listed,
        })
    }
}

/// Everything that follows from the counts alone.
fn figures_of(cache: &TokenCache, index: &ClassIndex, passed: &Passed) -> CacheStats {
    let (rows, views) = (cache.num_rows(), cache.num_views());
    let tokens = rows as u64 * cache.grid().num_tokens() as u64;
    let counts = &passed.counts;
    let (distinct_codes, code_entropy_bits) = distinct_and_entropy(counts.iter().copied());
    let distinct_codes = distinct_codes as usize;
    let ones = Ones::of(counts);
    let names = &cache.manifest().classes;
    let class = |(label, (distinct_codes, code_entropy_bits)): (i32, &(u64, f64))| ClassRows {
        label: label as usize,
        name: names.get(label as usize).cloned(),
        rows: (index.images(label).len() * views) as u64,
        distinct_codes: *distinct_codes,
        code_entropy_bits: *code_entropy_bits,
    };
    let classes: Vec<_> = index.labels().zip(&passed.classes).skip(1).map(class).collect();
    CacheStats {
        rows,
        images: cache.num_images(),
        views,
        tokens,
        codebook_size: counts.len(),
        distinct_codes,
        codebook_utilization: distinct_codes as f64 / counts.len() as f64,
        code_entropy_bits,
        code_histogram: histogram(counts),
        bit_balance: ones.alone.iter().map(|ones| *ones as f64 / tokens.max(1) as f64).collect(),
        dead_bits: ones.dead(tokens),
        bit_correlation: ones.correlation(tokens),
        empty_classes: classes.iter().filter(|class| class.rows == 0).count(),
        classes,
        unlabelled_rows: (index.images(-1).len() * views) as u64,
        duplicates: Default::default(),
        near_duplicates: Default::default(),
        label_conflicts: Default::default(),
    }
}

/// Reads every grid of a cache on all cores: the figures of [`Inspection::of`].
///
/// # Errors
/// As [`Inspection::of`].
///
/// ```
/// use tokengrid_cache::{TokenCache, stats, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let dir = &folder.path().join("cache");
/// write_synthetic_cache(dir, 100, 2)?;
/// let stats = stats(&TokenCache::open(dir)?)?;
/// assert_eq!((stats.rows, stats.dead_bits.len(), stats.duplicates.rows), (200, 0, 0));
/// # Ok(()) }
/// ```
pub fn stats(cache: &TokenCache) -> Result<CacheStats, CacheError> {
    Ok(Inspection::of(cache, None, &AtomicBool::new(false), &mut |_, _| {})?.stats)
}
