//! A row group in memory.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::hash::ContentSum;
use crate::format::job::JobSpec;
use crate::format::margins::Margins;
use crate::format::pack::pack;
use crate::format::quarantine::QuarantineRecord;
use crate::format::row::{CLASS_INDEX_MAX, KEY_BYTES_MAX, Row, row_hash};
use crate::format::split::Split;
use crate::format::text::shown;
use parquet::data_type::ByteArray;
use std::ops::Range;

/// Rows of whole, consecutive images: to be written as a row group, or read from one.
#[derive(Debug, Default)]
pub(crate) struct RowGroup {
    /// Images that this group covers, encoded or quarantined.
    pub(crate) images: Range<usize>,
    /// The split of all these images; empty in a cache without splits.
    pub(crate) split: String,
    pub(crate) quarantined: Vec<QuarantineRecord>,
    /// Packed grids, back to back.
    pub(crate) tokens: Vec<u8>,
    pub(crate) labels: Vec<i32>,
    pub(crate) keys: Vec<ByteArray>,
    pub(crate) views: Vec<i32>,
    pub(crate) crop_x: Vec<i32>,
    pub(crate) crop_y: Vec<i32>,
    pub(crate) flips: Vec<bool>,
    pub(crate) content: ContentSum,
    /// Counts of |h| of the group's images, as far as [`crate::CacheWriter::count_margins`] got them.
    pub(crate) margins: Margins,
    key_bytes: usize,
}

impl RowGroup {
    pub(crate) fn starting_at(image: usize, splits: &[Split]) -> RowGroup {
        RowGroup { images: image..image, split: Split::name_of(splits, image).to_owned(), ..RowGroup::default() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// An upper bound of the group's size in the file. Front coding can at worst add two small integers per key.
    pub(crate) fn bytes_max(&self) -> usize {
        self.tokens.len() + self.key_bytes + 64 * self.rows()
    }

    /// Appends a checked row.
    pub(crate) fn push(&mut self, grid: GridSpec, row: &Row<'_>) {
        let start = self.tokens.len();
        self.tokens.resize(start + grid.row_bytes(), 0);
        pack(row.tokens, grid.bits, &mut self.tokens[start..]);
        self.content.add_row(&row_hash(grid, &self.split, row, &self.tokens[start..]));
        // The views of an image share one allocation of their key.
        let key = match self.keys.last() {
            Some(last) if last.data() == row.key.as_bytes() => last.clone(),
            _ => ByteArray::from(row.key),
        };
        self.keys.push(key);
        self.key_bytes += row.key.len();
        self.labels.push(row.label);
        self.views.push(row.view as i32);
        self.crop_x.push(row.crop_x);
        self.crop_y.push(row.crop_y);
        self.flips.push(row.flip);
    }
}

/// Checks the rows of one image against its job, so that nothing that is written can be refused when it is read.
pub(crate) fn check_rows(job: &JobSpec, image: usize, rows: &[Row<'_>]) -> Result<(), CacheError> {
    let key = rows.first().map_or("", |row| row.key);
    let fail = |what, expected: String, actual: String| {
        let [expected, actual] = [expected, actual].map(|text| shown(&text));
        Err(CacheError::InvalidRow { image, key: shown(key), what, expected, actual })
    };
    if rows.len() != job.num_views as usize {
        return fail("number of views", job.num_views.to_string(), rows.len().to_string());
    }
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return fail("length of the key", format!("1 to {KEY_BYTES_MAX} bytes"), key.len().to_string());
    }
    for (view, row) in (job.first_view..).zip(rows) {
        if row.view != view {
            return fail("view", view.to_string(), row.view.to_string());
        }
        if row.key != key {
            return fail("key of a later view", key.to_owned(), row.key.to_owned());
        }
        if row.tokens.len() != job.grid.num_tokens() {
            return fail("number of tokens", job.grid.num_tokens().to_string(), row.tokens.len().to_string());
        }
        if let Some(token) = row.tokens.iter().find(|token| **token >> job.grid.bits != 0) {
            return fail("token", format!("less than 2^{}", job.grid.bits), token.to_string());
        }
        if row.label < -1 || (!job.classes.is_empty() && row.label >= job.classes.len() as i32) {
            let expected = format!("-1 or one of {} classes", job.classes.len());
            return fail("label", expected, row.label.to_string());
        }
        if row.label > CLASS_INDEX_MAX {
            return fail("label", format!("a class index up to {CLASS_INDEX_MAX}"), row.label.to_string());
        }
        if row.label != rows[0].label {
            return fail("label of a later view", rows[0].label.to_string(), row.label.to_string());
        }
    }
    Ok(())
}
