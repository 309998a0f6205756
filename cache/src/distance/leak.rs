//! Rows of one cache that are near rows of another: images of a validation set that are in the training set, too.

use crate::distance::blocks::{BlockIndex, Cut, INDEX_ROWS_MAX};
use crate::distance::hamming::Hamming;
use crate::distance::nearest::Nearest;
use crate::error::CacheError;
use crate::parallel;
use crate::parallel::num_threads;
use crate::read::cache::TokenCache;
use crate::read::require::Requirement;
use serde::Serialize;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Rows that are compared with an index at a time: they and a table of the index stay in a core's own cache.
const CHUNK_ROWS: usize = 1024;

/// Memory for the grids of the rows that are indexed at a time.
const INDEXED_BYTES_MAX: usize = 48 << 20;

/// Two rows that are near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeakPair {
    /// Bits in which their grids differ.
    pub distance: u32,
    /// The row of the validation cache.
    pub row: usize,
    /// The row of the training cache.
    pub train_row: usize,
}

/// What [`leak()`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leak {
    /// Pairs of rows within the distance.
    pub pairs: u64,
    /// Rows of the validation cache that are in a pair.
    pub rows: u64,
    /// How pairs were looked for: `blocks` (those that agree in one of distance + 1 blocks of bits were compared) or
    /// `all`. Either way none is missed.
    pub method: &'static str,
    /// The nearest pairs, nearest first.
    pub listed: Vec<LeakPair>,
}

/// Finds every pair of a row of `val` and a row of `train` whose grids differ in at most `distance` bits; lists the
/// nearest `limit`. Of a cache and itself, each pair of different rows is found once, the earlier row as `train_row`.
/// `threads`: as many as there are cores where it is `None`. `progress` is called with what is done and all of it.
///
/// The smaller cache is indexed, up to 65,536 rows at a time, and the other one read once for each such part. With blocks
/// of at least about ten bits (up to a distance of some 400 bits of 4608) the cost is that of `distance + 1` look-ups for each
/// row of the larger cache; otherwise all pairs are compared. Memory: at most 200 MB, and 16 MB per thread.
///
/// # Errors
/// [`CacheError::Requirement`] where the caches are of other grids or tokenizers; [`CacheError::Cancelled`]; as
/// [`TokenCache::read_packed`], where tokens are damaged or cannot be read.
///
/// ```
/// use tokengrid_cache::{TokenCache, leak, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (train, val) = (&folder.path().join("train"), &folder.path().join("val"));
/// write_synthetic_cache(train, 100, 1)?;
/// write_synthetic_cache(val, 10, 1)?; // the first ten
/// let caches = [TokenCache::open(train)?, TokenCache::open(val)?];
/// let found = leak(&caches[0], &caches[1], 200, 100, None, &mut |_, _| {})?;
/// assert_eq!((found.pairs, found.rows, found.listed[9].train_row), (10, 10, 9));
/// # Ok(()) }
/// ```
pub fn leak(
    train: &TokenCache,
    val: &TokenCache,
    distance: u32,
    limit: usize,
    threads: Option<usize>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Leak, CacheError> {
    let (grid, fingerprint) = (train.grid(), &train.manifest().tokenizer.fingerprint);
    val.require(&Requirement {
        grid: Some((grid.height, grid.width)),
        bits: Some(grid.bits),
        fingerprint: Some(fingerprint.clone()),
        ..Requirement::default()
    })?;
    let cut = Cut::new(grid.num_tokens() * grid.bits as usize, distance);
    let indexes_val = val.num_rows() <= train.num_rows();
    let (indexed, read) = if indexes_val { (val, train) } else { (train, val) };
    let affordable = (INDEXED_BYTES_MAX / grid.row_bytes()).clamp(1, INDEX_ROWS_MAX);
    let index_rows = affordable.min(cut.as_ref().map_or(INDEX_ROWS_MAX, Cut::index_rows));
    let search = Search {
        read,
        row_bytes: grid.row_bytes(),
        distance,
        limit,
        indexes_val,
        is_same: is_same_folder(train.local_dir(), val.local_dir()),
        hamming: Hamming::best(),
        nearest: Mutex::new(Nearest::new(limit)),
        near_val: (0..val.num_rows().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
    };
    let parts = indexed.num_rows().div_ceil(index_rows);
    let (mut done, total) = (0, parts as u64 * read.num_rows() as u64);
    let threads = threads.unwrap_or_else(num_threads);
    let mut packed = Vec::new();
    for part in 0..parts {
        let rows = part * index_rows..((part + 1) * index_rows).min(indexed.num_rows());
        indexed.read_packed(rows.clone(), &mut packed)?;
        let index = cut.as_ref().map(|cut| BlockIndex::new(cut, &packed, grid.row_bytes()));
        let against = Against { first_row: rows.start, packed: &packed, index };
        search.run(&against, threads, &mut |rows| {
            done += rows;
            progress(done, total);
        })?;
    }
    let nearest = search.nearest.into_inner().unwrap_or_else(PoisonError::into_inner);
    let near_val = search.near_val.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
    Ok(Leak {
        pairs: nearest.count,
        rows: near_val.sum(),
        method: if cut.is_some() { "blocks" } else { "all" },
        listed: nearest.into_sorted(),
    })
}

/// What all threads share.
struct Search<'a> {
    /// The cache that is read row by row.
    read: &'a TokenCache,
    row_bytes: usize,
    distance: u32,
    limit: usize,
    /// Whether the other cache, which is indexed, is that of the validation set.
    indexes_val: bool,
    /// Whether both are one cache.
    is_same: bool,
    hamming: Hamming,
    nearest: Mutex<Nearest<LeakPair>>,
    /// A bit for each row of the validation cache.
    near_val: Vec<AtomicU64>,
}

/// Some rows of the indexed cache.
struct Against<'a> {
    first_row: usize,
    packed: &'a [u8],
    index: Option<BlockIndex<'a>>,
}

/// Whether both are one cache, whose rows are not to be compared with themselves. A copy is another one.
fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

impl Search<'_> {
    /// Compares every row that is read.
    fn run(&self, against: &Against<'_>, threads: usize, progress: &mut dyn FnMut(u64)) -> Result<(), CacheError> {
        let groups = self.read.group_rows();
        parallel::map(threads, groups.len(), progress, |group, report| {
            let rows = groups[group].clone();
            let mut nearest = Nearest::new(self.limit);
            let mut candidates = Vec::new();
            let packed = self.read.checked_run(rows.clone())?;
            for (start, chunk) in rows.clone().step_by(CHUNK_ROWS).zip(packed.chunks(CHUNK_ROWS * self.row_bytes)) {
                crate::cancel::check()?;
                self.compare(against, start, chunk, &mut candidates, &mut nearest);
                report((chunk.len() / self.row_bytes) as u64);
            }
            self.read.release_rows(rows.start);
            self.nearest.lock().unwrap_or_else(PoisonError::into_inner).add(nearest);
            Ok(())
        })
        .map(drop)
    }

    /// Compares the rows of `chunk`, the first of which is row `start`.
    fn compare(
        &self,
        against: &Against<'_>,
        start: usize,
        chunk: &[u8],
        candidates: &mut Vec<u32>,
        nearest: &mut Nearest<LeakPair>,
    ) {
        let row_at = |packed, index: usize| row_of(packed, index, self.row_bytes);
        if let Some(index) = &against.index
            && index.candidates(chunk, self.row_bytes, candidates)
        {
            for pair in candidates.iter() {
                let (other, indexed) = ((pair >> 16) as usize, (pair & 0xFFFF) as usize);
                let near = self.hamming.within(row_at(chunk, other), row_at(against.packed, indexed), self.distance);
                if let Some(distance) = near {
                    self.found(distance, start + other, against.first_row + indexed, nearest);
                }
            }
            return;
        }
        // As many rows of both at a time as stay in a core's own cache.
        for tile in tiles(against.packed.len() / self.row_bytes) {
            for (other, packed) in chunk.chunks_exact(self.row_bytes).enumerate() {
                for indexed in tile.clone() {
                    if let Some(distance) = self.hamming.within(packed, row_at(against.packed, indexed), self.distance)
                    {
                        self.found(distance, start + other, against.first_row + indexed, nearest);
                    }
                }
            }
        }
    }

    fn found(&self, distance: u32, read: usize, indexed: usize, nearest: &mut Nearest<LeakPair>) {
        let (row, train_row) = if self.indexes_val { (indexed, read) } else { (read, indexed) };
        if self.is_same && train_row >= row {
            return;
        }
        self.near_val[row / 64].fetch_or(1 << (row % 64), Ordering::Relaxed);
        nearest.push(LeakPair { distance, row, train_row });
    }
}

fn row_of(packed: &[u8], index: usize, row_bytes: usize) -> &[u8] {
    &packed[index * row_bytes..(index + 1) * row_bytes]
}

fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(CHUNK_ROWS).map(move |start| start..(start + CHUNK_ROWS).min(rows))
}
