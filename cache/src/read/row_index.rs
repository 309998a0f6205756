//! Which row group a row is in.

use crate::shard::check_once::CheckOnce;
use bytes::Bytes;
use std::ops::Range;

/// One row group's grids.
pub(super) struct TokenGroup {
    pub(super) rows: Range<usize>,
    pub(super) tokens: Bytes,
    /// Shard, and row group in it.
    pub(super) place: (usize, usize),
    /// Whether the grids are those of their checksum.
    pub(super) checked: CheckOnce,
}

/// Finds the row group of a row in constant time: row groups have different numbers of rows, so a table says for every
/// block of `1 << shift` rows in which group it begins, and the search goes on from there.
pub(super) struct RowIndex {
    groups: Vec<TokenGroup>,
    first_group: Vec<u32>,
    shift: u32,
}

impl RowIndex {
    pub(super) fn new(groups: Vec<TokenGroup>, num_rows: usize) -> RowIndex {
        // Blocks about as long as a mean group: a step or two from a block's first group to any row of it.
        let mean = num_rows / groups.len().max(1);
        let shift = mean.max(1).ilog2();
        let mut first_group = Vec::with_capacity((num_rows >> shift) + 1);
        let mut group = 0;
        for block_start in (0..num_rows).step_by(1 << shift) {
            while groups[group].rows.end <= block_start {
                group += 1;
            }
            first_group.push(group as u32);
        }
        RowIndex { groups, first_group, shift }
    }

    /// The rows of every row group, in order.
    pub(super) fn rows(&self) -> Vec<Range<usize>> {
        self.groups.iter().map(|group| group.rows.clone()).collect()
    }

    #[inline]
    pub(super) fn find(&self, row: usize) -> &TokenGroup {
        let mut group = self.first_group[row >> self.shift] as usize;
        while self.groups[group].rows.end <= row {
            group += 1;
        }
        &self.groups[group]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_whatever_the_group_sizes() {
        for sizes in [vec![1], vec![5, 5, 5], vec![1, 100, 1, 1, 1, 7], vec![100, 1], vec![16_384, 16_380, 3]] {
            let mut groups = Vec::new();
            let mut next = 0;
            for (i, size) in sizes.iter().enumerate() {
                let (tokens, checked) = (Bytes::new(), CheckOnce::default());
                groups.push(TokenGroup { rows: next..next + size, tokens, place: (0, i), checked });
                next += size;
            }
            let index = RowIndex::new(groups, next);
            for row in 0..next {
                assert!(index.find(row).rows.contains(&row), "row {row} of {sizes:?}");
            }
        }
    }
}
