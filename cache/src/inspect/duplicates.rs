//! Grids that occur more than once.

use crate::distance::nearest::Nearest;
use crate::error::CacheError;
use crate::format::hash::quick_hash;
use crate::inspect::stats::Duplicates;
use crate::read::cache::TokenCache;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Pairs that statistics list.
const LISTED_IN_STATS: usize = 20;

/// Pairs that an inspection lists; all are counted.
const LISTED: usize = 10_000;

/// A row whose grid is that of an earlier row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SameGrid {
    /// The first row with the grid.
    pub first: usize,
    /// The row.
    pub row: usize,
    /// Whether it is another view of an image that has the grid already.
    pub same_image: bool,
}

/// Rows that are sorted at a time.
const PART_ROWS: usize = 1 << 20;

/// Finds rows with equal grids. `hashes` are 32 bits of the hash of each: rows that have the same ones are read, and 64 bits
/// compared.
///
/// Equal hashes of 64 bits stand for equal grids: of 10 million different ones, two share one with a probability of one
/// in 400,000. Memory: 12 bytes for each of a million rows.
pub(super) fn find(
    cache: &TokenCache,
    hashes: &[AtomicU32],
    cancel: &AtomicBool,
) -> Result<(Duplicates, Vec<SameGrid>), CacheError> {
    let mut found = Duplicates::default();
    let mut pairs = Nearest::new(LISTED);
    let mut packed = Vec::new();
    let parts = hashes.len().div_ceil(PART_ROWS).max(1) as u64;
    for part in 0..parts {
        // Hashes are spread evenly over the parts.
        let is_of_part = |hash: u32| (u64::from(hash) * parts) >> 32 == part;
        let with_row = hashes.iter().map(|hash| hash.load(Ordering::Relaxed)).zip(0u64..);
        let of_part = with_row.filter(|(hash, _)| is_of_part(*hash));
        let mut rows: Vec<u64> = of_part.map(|(hash, row)| u64::from(hash) << 32 | row).collect();
        rows.sort_unstable();
        for alike in rows.chunk_by(|a, b| a >> 32 == b >> 32).filter(|alike| alike.len() > 1) {
            let mut grids: Vec<Grid> = Vec::new();
            for row in alike.iter().map(|row| *row as u32 as usize) {
                if cancel.load(Ordering::Relaxed) {
                    return Err(CacheError::Cancelled);
                }
                cache.read_packed(row..row + 1, &mut packed)?;
                let (hash, image) = (quick_hash(&packed), row / cache.num_views());
                let Some(grid) = grids.iter_mut().find(|grid| grid.hash == hash) else {
                    grids.push(Grid { hash, first: row, last_image: image });
                    continue;
                };
                let same_image = image == grid.last_image;
                *(if same_image { &mut found.rows_within_image } else { &mut found.rows }) += 1;
                pairs.push((same_image, row, grid.first));
                grid.last_image = image;
            }
        }
    }
    let pairs = pairs.into_sorted().into_iter().map(|(same_image, row, first)| SameGrid { first, row, same_image });
    let pairs: Vec<_> = pairs.collect();
    let of_others = pairs.iter().filter(|pair| !pair.same_image);
    found.first = of_others.take(LISTED_IN_STATS).map(|pair| (pair.first, pair.row)).collect();
    Ok((found, pairs))
}

/// A grid of which several rows may be.
struct Grid {
    hash: u64,
    first: usize,
    last_image: usize,
}
