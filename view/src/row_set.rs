//! Sets of rows, and their texts: `0-5,9,12-20`. A selection of a million neighbours is a short text.

use crate::query::BadRequest;
use crate::text::printable;
use std::fmt::Write as _;
use std::ops::Range;

/// Rows in ascending order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowSet {
    /// Neither empty nor touching.
    ranges: Vec<Range<usize>>,
    /// Rows up to the end of each range.
    ends: Vec<usize>,
}

impl RowSet {
    /// Reads rows and ranges in any order; both ends of a range belong to it.
    ///
    /// # Errors
    /// A part that is neither a row nor a range, or is not below `num_rows`.
    pub(crate) fn parse(text: &str, num_rows: usize) -> Result<RowSet, BadRequest> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last < num_rows).then_some(first..last + 1)
        };
        let mut ranges = Vec::new();
        for part in parts {
            ranges.push(range(part).ok_or_else(|| {
                let part = printable(part, 64);
                BadRequest(format!(
                    "`{part}` is not among {num_rows} rows, counted from 0; expected rows and ranges: 0-5,9"
                ))
            })?);
        }
        Ok(Self::of_ranges(ranges))
    }

    /// Rows in any order.
    pub(crate) fn of(rows: impl IntoIterator<Item = usize>) -> RowSet {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for row in rows {
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end += 1,
                _ => ranges.push(row..row + 1),
            }
        }
        Self::of_ranges(ranges)
    }

    fn of_ranges(mut ranges: Vec<Range<usize>>) -> RowSet {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        let mut rows = 0;
        let count = |range: &Range<usize>| {
            rows += range.len();
            rows
        };
        let ends = joined.iter().map(count).collect();
        RowSet { ranges: joined, ends }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The row at a place in the list.
    pub(crate) fn get(&self, place: usize) -> Option<usize> {
        let nth = self.ends.partition_point(|end| *end <= place);
        let (range, end) = (self.ranges.get(nth)?, self.ends[nth]);
        Some(range.end - (end - place))
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().cloned().flatten()
    }

    /// The text that [`RowSet::parse`] reads.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for Range { start, end } in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a text does not fail.
            let _ = match end - start {
                1 => write!(text, "{comma}{start}"),
                _ => write!(text, "{comma}{start}-{}", end - 1),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_read_in_any_order_and_checked() {
        let rows = RowSet::parse("9, 0-3,2-5,6,20-20,", 21).unwrap();
        assert_eq!((rows.to_text().as_str(), rows.len()), ("0-6,9,20", 9));
        assert_eq!(RowSet::parse("", 0).unwrap().len(), 0);
        for wrong in ["21", "5-3", "0-21", "-1", "x", "1-2-3", "1;2", "99999999999999999999"] {
            let message = RowSet::parse(wrong, 21).unwrap_err().0;
            assert!(message.contains(wrong) && message.contains("21 rows"), "{wrong}: {message}");
        }
    }

    proptest! {
        #[test]
        fn a_set_is_what_was_put_into_it(mut rows in prop::collection::vec(0usize..60, 0..40)) {
            let set = RowSet::of(rows.clone());
            rows.sort_unstable();
            rows.dedup();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), rows.clone());
            prop_assert_eq!((0..rows.len() + 1).map_while(|place| set.get(place)).collect::<Vec<_>>(), rows.clone());
            prop_assert_eq!(RowSet::parse(&set.to_text(), 60).unwrap(), set.clone());
            }
    }
}
