//! Sets of rows, and their texts: `0-5,9,12-20`. A selection of a million neighbours is a short text.

use crate::query::BadRequest;
use crate::search::short;
use crate::server::BODY_BYTES_MAX;
use crate::text::printable;
use std::fmt::Write as _;
use std::ops::Range;

/// Rows in ascending order, each once.
///
/// Twelve bytes per range: somebody may select every other row of millions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowSet {
    /// Neither empty nor touching.
    ranges: Vec<Range<u32>>,
    /// Rows up to the end of each range.
    ends: Vec<u32>,
}

/// Longest text of a set, in bytes: what a page may send, with some room for what it sends beside it.
const TEXT_BYTES_MAX: usize = BODY_BYTES_MAX - (64 << 10);

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
            (first <= last && last < num_rows).then_some(short(first)..short(last + 1))
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
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for row in rows.into_iter().map(short) {
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end += 1,
                _ => ranges.push(row..row + 1),
            }
        }
        Self::of_ranges(ranges)
    }

    fn of_ranges(mut ranges: Vec<Range<u32>>) -> RowSet {
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        ranges.shrink_to_fit();
        let mut rows = 0;
        let mut ends = Vec::with_capacity(ranges.len());
        for range in &ranges {
            rows += range.end - range.start;
            ends.push(rows);
        }
        RowSet { ranges, ends }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// The row at a place in the list.
    pub(crate) fn get(&self, place: usize) -> Option<usize> {
        let nth = self.ends.partition_point(|end| *end as usize <= place);
        let (range, end) = (self.ranges.get(nth)?, self.ends[nth] as usize);
        Some(range.end as usize - (end - place))
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().cloned().flatten().map(|row| row as usize)
    }

    /// The images of the rows, where each has `views` rows: ranges in ascending order, apart from each other.
    pub(crate) fn images(&self, views: usize) -> Vec<Range<usize>> {
        let mut images: Vec<Range<usize>> = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let (first, end) = (range.start as usize / views, (range.end as usize).div_ceil(views));
            match images.last_mut() {
                // Two ranges may have rows of one image, or of neighbours.
                Some(last) if first <= last.end => last.end = end,
                _ => images.push(first..end),
            }
        }
        images
    }

    /// The text that [`RowSet::parse`] reads.
    ///
    /// # Errors
    /// The text would be longer than what a page may send back.
    pub(crate) fn to_text(&self) -> Result<String, BadRequest> {
        // Known beforehand: a text that grows takes up to twice its memory.
        let bytes: usize = self.ranges.iter().map(text_bytes).sum();
        if bytes > TEXT_BYTES_MAX {
            let (rows, ranges, most) = (self.len(), self.ranges.len(), BODY_BYTES_MAX >> 20);
            return Err(BadRequest(format!(
                "{rows} rows in {ranges} separate ranges are too many to select: their numbers are more than {most} MiB; \
                 select fewer, or rows that follow each other"
            )));
        }
        let mut text = String::with_capacity(bytes);
        for Range { start, end } in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a text does not fail.
            let _ = match end - start {
                1 => write!(text, "{comma}{start}"),
                _ => write!(text, "{comma}{start}-{}", end - 1),
            };
        }
        Ok(text)
    }
}

/// Bytes of a range and the comma before it.
fn text_bytes(range: &Range<u32>) -> usize {
    let digits = |number: u32| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let last = range.end - 1;
    1 + digits(range.start) + if last > range.start { 1 + digits(last) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_read_in_any_order_and_checked() {
        let rows = RowSet::parse("9, 0-3,2-5,6,20-20,", 21).unwrap();
        assert_eq!((rows.to_text().unwrap().as_str(), rows.len()), ("0-6,9,20", 9));
        assert_eq!(RowSet::parse("", 0).unwrap().len(), 0);
        for wrong in ["21", "5-3", "0-21", "-1", "x", "1-2-3", "1;2", "99999999999999999999"] {
            let message = RowSet::parse(wrong, 21).unwrap_err().0;
            assert!(message.contains(wrong) && message.contains("21 rows"), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_set_whose_text_could_not_be_sent_back_is_refused() {
        let every_other = RowSet::of((10_000_000..18_000_000).step_by(2));
        let message = every_other.to_text().unwrap_err().0;
        assert!(message.contains("4000000 rows in 4000000 separate ranges"), "{message}");
        assert_eq!(RowSet::of(0..40_000_000).to_text().unwrap(), "0-39999999");
    }

    proptest! {
        #[test]
        fn images_are_those_of_the_rows(rows in prop::collection::vec(0usize..60, 0..40), views in 1usize..5) {
            let set = RowSet::of(rows);
            let mut expected: Vec<usize> = set.iter().map(|row| row / views).collect();
            expected.dedup();
            let (text, bytes) = (set.to_text().unwrap(), set.ranges.iter().map(text_bytes).sum::<usize>());
            prop_assert_eq!(text.len(), bytes.saturating_sub(1));
            let found = set.images(views);
            prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", found);
            prop_assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn a_set_is_what_was_put_into_it(mut rows in prop::collection::vec(0usize..60, 0..40)) {
            let set = RowSet::of(rows.clone());
            rows.sort_unstable();
            rows.dedup();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), rows.clone());
            prop_assert_eq!((0..rows.len() + 1).map_while(|place| set.get(place)).collect::<Vec<_>>(), rows.clone());
            prop_assert_eq!(RowSet::parse(&set.to_text().unwrap(), 60).unwrap(), set.clone());
            }
    }
}
