//! Rows of a Parquet file that wait for the rest of their image.

use crate::error::CacheError;
use crate::files::token_lists::Columns;
use crate::import::error::import_error;
use std::path::Path;

/// A view that the file does not have: counted instead.
pub(super) const MISSING: i64 = i64::MIN;

/// Rows that wait for the rest of their image.
#[derive(Default)]
pub(super) struct OwnedRows {
    pub(super) columns: Columns,
    pub(super) start: usize,
    pub(super) total: usize,
}

impl OwnedRows {
    pub(super) fn len(&self) -> usize {
        self.columns.lengths.len() - self.start
    }

    pub(super) fn drop_front(&mut self, rows: usize) {
        self.start += rows;
        self.total += rows;
    }

    /// Forgets the rows that were dropped.
    pub(super) fn compact(&mut self) {
        let start = self.start;
        let tokens: usize = self.columns.lengths[..start].iter().sum();
        let columns = &mut self.columns;
        columns.tokens.drain(..tokens);
        columns.lengths.drain(..start);
        columns.keys.drain(..start);
        columns.flips.drain(..start);
        for values in [&mut columns.labels, &mut columns.views, &mut columns.crop_x, &mut columns.crop_y] {
            values.drain(..start);
        }
        self.start = 0;
    }

    /// Rows without keys get the number of their image.
    pub(super) fn append(
        &mut self,
        path: &Path,
        mut more: Columns,
        num_tokens: usize,
        views: usize,
    ) -> Result<(), CacheError> {
        let rows = more.lengths.len();
        if let Some(length) = more.lengths.iter().find(|length| **length != num_tokens) {
            return Err(import_error(path, "length of a list", num_tokens.to_string(), *length));
        }
        let first = self.total + self.len();
        let columns = &mut self.columns;
        let keys = std::mem::take(&mut more.keys);
        let numbered = (0..rows).map(|row| format!("{:08}", (first + row) / views).as_str().into());
        columns.keys.extend(if keys.len() == rows { keys } else { numbered.collect() });
        columns.tokens.append(&mut more.tokens);
        columns.lengths.append(&mut more.lengths);
        more.flips.resize(rows, false);
        columns.flips.append(&mut more.flips);
        for (values, more, default) in [
            (&mut columns.labels, &mut more.labels, -1),
            (&mut columns.views, &mut more.views, MISSING),
            (&mut columns.crop_x, &mut more.crop_x, 0),
            (&mut columns.crop_y, &mut more.crop_y, 0),
        ] {
            more.resize(rows, default);
            values.append(more);
        }
        Ok(())
    }
}
