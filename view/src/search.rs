//! Which rows are shown: filters, and what they found.

use std::ops::Range;
use std::sync::Arc;
use tokengrid_cache::{FoundRows, RowFilter, TokenCache};

/// What rows must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the cache looks for.
    pub(crate) filter: RowFilter,
    /// The split that they are of.
    pub(crate) split: Option<String>,
}

/// Rows that were found, in row order.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    rows: Arc<FoundRows>,
    /// The places among `rows` that count: splits are ranges of rows.
    places: Range<usize>,
}

impl Found {
    /// Those of `rows` that are of `split`; `None` where the cache has no such split.
    pub(crate) fn of(rows: Arc<FoundRows>, split: Option<&str>, cache: &TokenCache) -> Option<Found> {
        let places = match split {
            None => 0..rows.len(),
            Some(name) => {
                let images = cache.split_images(name)?;
                let first_of = |image: usize| first_place(&rows, image * cache.num_views());
                first_of(images.start)..first_of(images.end)
            }
        };
        Some(Found { rows, places })
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The row at a place in the list.
    pub(crate) fn get(&self, place: usize) -> Option<usize> {
        let place = self.places.start.checked_add(place).filter(|place| self.places.contains(place))?;
        self.rows.get(place)
    }
}

/// The place of the first row that is `row` or follows it.
fn first_place(rows: &FoundRows, row: usize) -> usize {
    let (mut low, mut high) = (0, rows.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if rows.get(middle).is_some_and(|found| found < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
