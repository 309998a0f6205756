//! What the tokens of a cache are like: use of the codebook, balance of the bits, classes, duplicates.

use serde::Serialize;

use crate::error::CacheError;
use crate::parallel::{self, num_threads};
use crate::reader::TokenCache;
use crate::unpack::Kernels;

/// Duplicates that a report lists.
const LISTED_DUPLICATES: usize = 20;

/// Rows that a thread counts at a time.
const BLOCK_ROWS: usize = 8192;

/// Statistics over all rows of a cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// Rows.
    pub rows: usize,
    /// Images.
    pub images: usize,
    /// Views of every image.
    pub views: usize,
    /// Tokens in all rows.
    pub tokens: u64,
    /// Codes that there are: 2^bits.
    pub codebook_size: usize,
    /// Codes that occur.
    pub distinct_codes: usize,
    /// `distinct_codes / codebook_size`.
    pub codebook_utilization: f64,
    /// Entropy of the codes, in bits a token; at most the number of bits.
    pub code_entropy_bits: f64,
    /// For n = 0, 1, ...: codes that occur 0 times, once, and from 2^(n-1) to 2^n - 1 times.
    pub code_histogram: Vec<u64>,
    /// For every bit of a token, from the least significant one: the fraction of tokens in which it is 1.
    pub bit_balance: Vec<f64>,
    /// Bits that have the same value in every token.
    pub dead_bits: Vec<u32>,
    /// Rows of each class, by class index.
    pub classes: Vec<ClassRows>,
    /// Rows without a class (label -1).
    pub unlabelled_rows: u64,
    /// Classes of the list that no row has.
    pub empty_classes: usize,
    /// Grids that are exactly those of an earlier row.
    pub duplicates: Duplicates,
}

/// Rows of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClassRows {
    /// Class index.
    pub label: usize,
    /// Its name, where the cache has one.
    pub name: Option<String>,
    /// Rows.
    pub rows: u64,
}

/// Grids that occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Duplicates {
    /// Rows whose grid is that of an earlier row of another image.
    pub rows: u64,
    /// Rows whose grid is that of an earlier view of the same image (a recipe of small crops has some).
    pub rows_within_image: u64,
    /// The first pairs of (earlier row, row) of different images.
    pub first: Vec<(usize, usize)>,
}

/// Reads every grid of a cache on all cores. Memory: 8 bytes a code and thread, and 16 bytes a row while duplicates are
/// sought.
///
/// # Errors
/// None at present; the cache was validated when it was opened.
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
    let threads = num_threads();
    let rows = cache.num_rows();
    // One piece a thread: each has a counter for every code.
    let per_thread = rows.div_ceil(threads).max(1);
    let pieces = rows.div_ceil(per_thread);
    let counted = parallel::map(threads, pieces, &mut |_| {}, |piece, _| {
        Ok(Counts::of(cache, piece * per_thread..((piece + 1) * per_thread).min(rows)))
    })?;
    let mut codes = vec![0u64; 1 << cache.grid().bits];
    let mut hashes = Vec::with_capacity(rows);
    for counts in counted {
        codes.iter_mut().zip(counts.codes).for_each(|(sum, count)| *sum += count);
        hashes.extend(counts.hashes);
    }
    let tokens = rows as u64 * cache.grid().num_tokens() as u64;
    let distinct_codes = codes.iter().filter(|count| **count > 0).count();
    let ones = ones_by_bit(&codes, cache.grid().bits);
    let (classes, unlabelled_rows) = rows_by_class(cache);
    Ok(CacheStats {
        rows,
        images: cache.num_images(),
        views: cache.num_views(),
        tokens,
        codebook_size: codes.len(),
        distinct_codes,
        codebook_utilization: distinct_codes as f64 / codes.len() as f64,
        code_entropy_bits: entropy_bits(&codes, tokens),
        code_histogram: histogram(&codes),
        bit_balance: ones.iter().map(|ones| *ones as f64 / tokens.max(1) as f64).collect(),
        dead_bits: (0..)
            .zip(&ones)
            .filter(|(_, n)| tokens > 0 && (**n == 0 || **n == tokens))
            .map(|(b, _)| b)
            .collect(),
        empty_classes: classes.iter().filter(|class| class.rows == 0).count(),
        classes,
        unlabelled_rows,
        duplicates: duplicates(hashes, cache.num_views()),
    })
}

/// What one thread counts.
struct Counts {
    codes: Vec<u64>,
    /// 64 bits of the hash of each grid, with its row.
    hashes: Vec<(u64, u64)>,
}

impl Counts {
    fn of(cache: &TokenCache, rows: std::ops::Range<usize>) -> Counts {
        let grid = cache.grid();
        let kernels = Kernels::best(grid.bits);
        let mut counts = Counts { codes: vec![0; 1 << grid.bits], hashes: Vec::with_capacity(rows.len()) };
        let mut tokens = vec![0u32; grid.num_tokens()];
        for start in rows.clone().step_by(BLOCK_ROWS) {
            for row in start..(start + BLOCK_ROWS).min(rows.end) {
                let packed = cache.packed_row(row);
                kernels.narrow(packed, &mut tokens);
                tokens.iter().for_each(|token| counts.codes[*token as usize] += 1);
                counts.hashes.push((short_hash(packed), row as u64));
            }
        }
        counts
    }
}

fn short_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

fn ones_by_bit(codes: &[u64], bits: u32) -> Vec<u64> {
    let mut ones = vec![0; bits as usize];
    for (code, count) in codes.iter().enumerate().filter(|(_, count)| **count > 0) {
        ones.iter_mut().enumerate().for_each(|(bit, ones)| *ones += count * (code as u64 >> bit & 1));
    }
    ones
}

fn entropy_bits(codes: &[u64], tokens: u64) -> f64 {
    let share = |count: u64| count as f64 / tokens as f64;
    codes.iter().filter(|count| **count > 0).map(|count| -share(*count) * share(*count).log2()).sum::<f64>() + 0.0
}

fn histogram(codes: &[u64]) -> Vec<u64> {
    let mut histogram = Vec::new();
    for count in codes {
        let bin = (64 - count.leading_zeros()) as usize;
        if histogram.len() <= bin {
            histogram.resize(bin + 1, 0);
        }
        histogram[bin] += 1;
    }
    histogram
}

fn rows_by_class(cache: &TokenCache) -> (Vec<ClassRows>, u64) {
    let names = &cache.manifest().classes;
    let mut rows = vec![0u64; names.len()];
    let mut unlabelled = 0;
    for image in 0..cache.num_images() {
        match usize::try_from(cache.image_label(image)) {
            Err(_) => unlabelled += cache.num_views() as u64,
            Ok(label) => {
                if rows.len() <= label {
                    rows.resize(label + 1, 0);
                }
                rows[label] += cache.num_views() as u64;
            }
        }
    }
    let class = |(label, rows)| ClassRows { label, name: names.get(label).cloned(), rows };
    (rows.into_iter().enumerate().map(class).collect(), unlabelled)
}

/// Equal hashes of 64 bits stand for equal grids: of 10 million different ones, two share one with a probability of one
/// in 400,000.
fn duplicates(mut hashes: Vec<(u64, u64)>, views: usize) -> Duplicates {
    hashes.sort_unstable();
    let mut found = Duplicates::default();
    for same in hashes.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
        let original = same[0].1 as usize;
        let mut previous_image = original / views;
        for (_, row) in &same[1..] {
            let (row, image) = (*row as usize, *row as usize / views);
            if image == previous_image {
                found.rows_within_image += 1;
            } else {
                found.rows += 1;
                found.first.push((original, row));
            }
            previous_image = image;
        }
    }
    found.first.sort_unstable_by_key(|(_, row)| *row);
    found.first.truncate(LISTED_DUPLICATES);
    found
}
