//! Rows near a given grid, in one pass over all rows.

use crate::distance::hamming::Hamming;
use crate::distance::nearest::Nearest;
use crate::error::CacheError;
use crate::parallel;
use crate::parallel::num_threads;
use crate::read::cache::TokenCache;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// A row and in how many bits it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NearRow {
    /// Bits in which its grid differs.
    pub distance: u32,
    /// The row.
    pub row: usize,
}

/// What [`near_rows`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearRows {
    /// Rows within the distance.
    pub found: u64,
    /// The nearest of them, nearest first, in row order where they are equally near.
    pub rows: Vec<NearRow>,
}

/// Finds all rows whose grids differ from one of `queries` in at most `distance` bits; lists the nearest `limit`. Queries
/// are packed grids of the cache's shape, [`crate::GridSpec::row_bytes`] each; a row's distance is that from the nearest
/// one. `threads`: as many as there are cores where it is `None`. `progress` is called with the rows done and all rows.
///
/// Every row is compared: nothing is missed. The rows are read through the map, and do not stay in memory. The grids of each row
/// group are compared with their checksum first.
///
/// # Errors
/// [`CacheError::Cancelled`]; [`CacheError::ColumnChecksum`]; [`CacheError::InvalidGrid`] for a query of another length.
///
/// ```
/// use tokengrid_cache::{TokenCache, near_rows, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let dir = &folder.path().join("cache");
/// write_synthetic_cache(dir, 100, 1)?;
/// let cache = TokenCache::open(dir)?;
/// let found = near_rows(&cache, &[cache.packed_row(7)], 200, 10, None, &mut |_, _| {})?;
/// assert_eq!((found.found, found.rows[0].row, found.rows[0].distance), (1, 7, 0));
/// # Ok(()) }
/// ```
pub fn near_rows(
    cache: &TokenCache,
    queries: &[&[u8]],
    distance: u32,
    limit: usize,
    threads: Option<usize>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<NearRows, CacheError> {
    let row_bytes = cache.grid().row_bytes();
    if let Some(query) = queries.iter().find(|query| query.len() != row_bytes) {
        let grid = format!("of {} packed bytes (here {row_bytes})", query.len());
        return Err(CacheError::InvalidGrid { grid, bits: cache.grid().bits });
    }
    let hamming = Hamming::best();
    let groups = cache.group_rows();
    let (mut done, total) = (0, cache.num_rows() as u64);
    let mut count = |rows| {
        done += rows;
        progress(done, total);
    };
    let threads = threads.unwrap_or_else(num_threads);
    let nearest = Mutex::new(Nearest::new(limit));
    parallel::map(threads, groups.len(), &mut count, |group, report| {
        let rows = groups[group].clone();
        let mut of_group = Nearest::new(limit);
        let packed = cache.checked_run(rows.clone())?;
        for (row, packed) in rows.clone().zip(packed.chunks_exact(row_bytes)) {
            let near = queries.iter().filter_map(|query| hamming.within(query, packed, distance)).min();
            if let Some(distance) = near {
                of_group.push(NearRow { distance, row });
            }
        }
        cache.release_rows(rows.start);
        report(rows.len() as u64);
        nearest.lock().unwrap_or_else(PoisonError::into_inner).add(of_group);
        Ok(())
    })?;
    let nearest = nearest.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(NearRows { found: nearest.count, rows: nearest.into_sorted() })
}
