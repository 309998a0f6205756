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
        /// Whether the last one comes first.
        is_reversed: bool,
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
        Some(Found::Computed { rows, places, is_reversed: false })
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
            Found::Computed { rows, places, is_reversed } => {
                let after = place.checked_add(1).filter(|after| *after <= places.len())?;
                rows.get(if *is_reversed { places.end - after } else { places.start + place })
            }
            Found::List(rows) => rows.get(place).map(|row| *row as usize),
        }
    }

    /// All of them, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Memory that they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Found::Computed { .. } => 0,
            Found::List(rows) => rows.capacity() * size_of::<u32>(),
        }
    }

    /// Those that `keep` accepts.
    pub(crate) fn filtered(&self, keep: impl Fn(usize) -> bool) -> Found {
        // Counted first: a list that grows takes up to twice its memory.
        let mut rows = Vec::with_capacity(self.iter().filter(|row| keep(*row)).count());
        rows.extend(self.iter().filter(|row| keep(*row)).map(short));
        Found::List(Arc::new(rows))
    }

    /// Those of `rows` that are among them; both are in row order.
    pub(crate) fn among_sorted(&self, mut rows: Vec<u32>) -> Found {
        let mut own = self.iter().map(short).peekable();
        rows.retain(|row| {
            while own.next_if(|own| own < row).is_some() {}
            own.peek() == Some(row)
        });
        Found::List(Arc::new(rows))
    }

    /// Those of `named` that are among them, in row order: without a look at all the others.
    pub(crate) fn among(&self, named: &RowSet) -> Found {
        let has = |row: usize| match self {
            Found::Computed { rows, places, .. } => {
                let place = first_place(rows, row);
                places.contains(&place) && rows.get(place) == Some(row)
            }
            Found::List(rows) => rows.contains(&short(row)),
        };
        Found::List(Arc::new(named.iter().filter(|row| has(*row)).map(short).collect()))
    }

    /// The same rows from the last one to the first.
    pub(crate) fn reversed(self) -> Found {
        match self {
            Found::Computed { rows, places, is_reversed } => {
                Found::Computed { rows, places, is_reversed: !is_reversed }
            }
            Found::List(rows) => {
                let mut rows = Arc::unwrap_or_clone(rows);
                rows.reverse();
                Found::List(Arc::new(rows))
            }
        }
    }

    /// The same rows in the order of a number that each has; `rows` are in row order, and stay so where numbers are equal. By
    /// counting: a sort would take more memory, and twenty times as long.
    pub(crate) fn ordered(&self, number: impl Fn(usize) -> u16, is_descending: bool) -> Found {
        let number = |row: usize| usize::from(if is_descending { u16::MAX - number(row) } else { number(row) });
        let mut starts = vec![0usize; usize::from(u16::MAX) + 1];
        self.iter().for_each(|row| starts[number(row)] += 1);
        let mut before = 0;
        for start in &mut starts {
            before += std::mem::replace(start, before);
        }
        let mut rows = vec![0; self.len()];
        for row in self.iter() {
            let place = &mut starts[number(row)];
            rows[*place] = short(row);
            *place += 1;
        }
        Found::List(Arc::new(rows))
    }
}

/// The number of a row in four bytes.
pub(crate) fn short(row: usize) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(found: &Found) -> Vec<usize> {
        found.iter().collect()
    }

    proptest! {
        #[test]
        fn an_order_is_that_of_a_stable_sort(
            numbers in prop::collection::vec(prop_oneof![0u16..4, any::<u16>()], 1..80),
            is_descending in any::<bool>(),
        ) {
            let all = Found::List(Arc::new((0..numbers.len() as u32).collect()));
            let mut expected: Vec<usize> = (0..numbers.len()).collect();
            if is_descending {
                expected.sort_by_key(|row| std::cmp::Reverse(numbers[*row]));
            } else {
                expected.sort_by_key(|row| numbers[*row]);
            }
            let ordered = all.ordered(|row| numbers[row], is_descending);
            prop_assert_eq!(rows(&ordered), expected.clone());
            expected.reverse();
            prop_assert_eq!(rows(&ordered.reversed()), expected);
        }

        #[test]
        fn what_two_sorted_lists_share_is_found(
            mut a in prop::collection::vec(0u32..60, 0..40), mut b in prop::collection::vec(0u32..60, 0..40)
        ) {
            for list in [&mut a, &mut b] {
                list.sort_unstable();
                list.dedup();
            }
            let shared: Vec<usize> = a.iter().filter(|row| b.contains(row)).map(|row| *row as usize).collect();
            prop_assert_eq!(rows(&Found::List(Arc::new(a)).among_sorted(b)), shared);
        }
    }
}
