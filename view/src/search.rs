//! Which rows are shown: filters, orders, and what they found.

use crate::row_set::RowSet;
use std::ops::Range;
use std::sync::Arc;
use tokengrid_cache::{FoundRows, RowFilter, TokenCache};

/// What rows must have, and their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the cache looks for.
    pub(crate) filter: RowFilter,
    /// The split that they are of.
    pub(crate) split: Option<String>,
    /// What it takes a list to find.
    pub(crate) listed: Listed,
}

/// Conditions and orders for which the rows that were found are put into a list of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Any of these classes, in ascending order.
    pub(crate) labels: Option<Vec<i32>>,
    /// A code that one of their tokens has.
    pub(crate) code: Option<u32>,
    /// Rows that were named.
    pub(crate) rows: Option<RowSet>,
    /// Their order, where it is not that of the cache.
    pub(crate) order: Option<Order>,
}

/// An order of rows; equal ones stay in row order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) by: By,
    pub(crate) is_descending: bool,
}

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Their order in the cache.
    Row,
    /// Entropy of the codes of their own grids.
    Entropy,
    /// Distance from the mean of their class.
    Distance,
    /// The share of bits near 0 in their shard.
    Margin,
}

impl Listed {
    /// Whether rows need no list.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Listed::default()
    }
}

/// Rows that were found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// In row order, computed from the classes' lists.
    Computed {
        rows: Arc<FoundRows>,
        /// The places among `rows` that count: splits are ranges of rows.
        places: Range<usize>,
    },
    /// In any order.
    List(Arc<Vec<u32>>),
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
        Some(Found::Computed { rows, places })
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        match self {
            Found::Computed { places, .. } => places.len(),
            Found::List(rows) => rows.len(),
        }
    }

    /// The row at a place in the list.
    pub(crate) fn get(&self, place: usize) -> Option<usize> {
        match self {
            Found::Computed { rows, places } => {
                let place = places.start.checked_add(place).filter(|place| places.contains(place))?;
                rows.get(place)
            }
            Found::List(rows) => rows.get(place).map(|row| *row as usize),
        }
    }

    /// All of them, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Those that `keep` accepts.
    pub(crate) fn filtered(&self, keep: impl Fn(usize) -> bool) -> Found {
        Found::List(Arc::new(self.iter().filter(|row| keep(*row)).map(short).collect()))
    }

    /// Those of `named` that are among them, in row order: without a look at all the others.
    pub(crate) fn among(&self, named: &RowSet) -> Found {
        let has = |row: usize| match self {
            Found::Computed { rows, places } => {
                let place = first_place(rows, row);
                places.contains(&place) && rows.get(place) == Some(row)
            }
            Found::List(rows) => rows.contains(&short(row)),
        };
        Found::List(Arc::new(named.iter().filter(|row| has(*row)).map(short).collect()))
    }

    /// The same rows from the last one to the first.
    pub(crate) fn reversed(&self) -> Found {
        Found::List(Arc::new((0..self.len()).rev().filter_map(|place| self.get(place)).map(short).collect()))
    }

    /// The same rows in the order of a number that each has; `rows` are in row order.
    pub(crate) fn ordered(&self, number: impl Fn(usize) -> u16, is_descending: bool) -> Found {
        let mut rows: Vec<u32> = self.iter().map(short).collect();
        let number = |row: &u32| number(*row as usize);
        if is_descending {
            rows.sort_by_key(|row| std::cmp::Reverse(number(row)));
        } else {
            rows.sort_by_key(number);
        }
        Found::List(Arc::new(rows))
    }
}

fn short(row: usize) -> u32 {
    u32::try_from(row).expect("fewer than 2^32 rows")
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
