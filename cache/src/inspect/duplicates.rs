//! Grids that occur more than once.

use crate::inspect::stats::Duplicates;
use serde::{Deserialize, Serialize};

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

/// Finds equal hashes in `hashes`, one per row.
///
/// Equal hashes of 64 bits stand for equal grids: of 10 million different ones, two share one with a probability of one
/// in 400,000.
pub(super) fn find(hashes: &[u64], views: usize) -> (Duplicates, Vec<SameGrid>) {
    let repeated = repeated(hashes);
    let occurs = |hash: &u64| repeated.binary_search(hash).is_ok();
    let mut rows: Vec<(u64, usize)> =
        hashes.iter().enumerate().filter(|(_, hash)| occurs(hash)).map(|(row, hash)| (*hash, row)).collect();
    rows.sort_unstable();
    let mut found = Duplicates::default();
    let mut pairs = Vec::new();
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        let first = same[0].1;
        let mut previous_image = first / views;
        for (_, row) in &same[1..] {
            let image = row / views;
            let same_image = image == previous_image;
            *(if same_image { &mut found.rows_within_image } else { &mut found.rows }) += 1;
            pairs.push(SameGrid { first, row: *row, same_image });
            previous_image = image;
        }
    }
    pairs.sort_unstable_by_key(|pair| (pair.same_image, pair.row));
    let of_others = pairs.iter().filter(|pair| !pair.same_image);
    found.first = of_others.take(LISTED_IN_STATS).map(|pair| (pair.first, pair.row)).collect();
    pairs.truncate(LISTED);
    (found, pairs)
}

/// Hashes that occur more than once, sorted.
fn repeated(hashes: &[u64]) -> Vec<u64> {
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    let mut repeated: Vec<u64> = sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    repeated.dedup();
    repeated
}
