//! What the `.json` of a WebDataset sample of tokens says about a row.

use crate::format::grid::GridSpec;
use crate::format::row::Row;
use serde::{Deserialize, Serialize};

/// A row, without its tokens. Samples of other programs do not have all of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SampleInfo {
    pub(crate) key: String,
    pub(crate) label: i32,
    pub(crate) view: u32,
    pub(crate) crop_x: i32,
    pub(crate) crop_y: i32,
    pub(crate) flip: bool,
    /// `16x16`.
    pub(crate) grid: String,
    pub(crate) bits: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) split: String,
}

impl SampleInfo {
    pub(crate) fn of(row: &Row<'_>, grid: GridSpec, split: &str) -> SampleInfo {
        let Row { key, label, view, crop_x, crop_y, flip, .. } = *row;
        let (grid, bits) = (grid.to_string(), grid.bits);
        SampleInfo { key: key.to_owned(), label, view, crop_x, crop_y, flip, grid, bits, split: split.to_owned() }
    }
}
