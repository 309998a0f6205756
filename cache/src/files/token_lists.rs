//! The columns of a Parquet file whose grids are lists of integers, decoded.

use parquet::data_type::ByteArray;

/// Metadata key of the job's description.
pub(crate) const JOB_KEY: &str = "tokengrid.export";

/// Columns of rows, decoded.
#[derive(Default)]
pub(crate) struct Columns {
    pub(crate) tokens: Vec<i64>,
    /// Tokens of each row.
    pub(crate) lengths: Vec<usize>,
    pub(crate) labels: Vec<i64>,
    pub(crate) keys: Vec<ByteArray>,
    pub(crate) views: Vec<i64>,
    pub(crate) crop_x: Vec<i64>,
    pub(crate) crop_y: Vec<i64>,
    pub(crate) flips: Vec<bool>,
    /// Of an export; the description of its job says the same.
    pub(crate) splits: Vec<ByteArray>,
}
