//! Row numbers as Python gives them: 64-bit integers, of which negative ones count from the end.

use crate::errors;
use pyo3::prelude::*;
use tokengrid_cache::TokenCache;

/// Checked row numbers of `cache`.
pub(crate) fn checked(py: Python<'_>, cache: &TokenCache, indices: &[i64]) -> PyResult<Vec<usize>> {
    let num_rows = cache.num_rows();
    let row_of = |index: &i64| {
        let row = if *index < 0 { *index + num_rows as i64 } else { *index };
        usize::try_from(row).ok().filter(|row| *row < num_rows).ok_or(*index)
    };
    let rows: Result<Vec<usize>, i64> = indices.iter().map(row_of).collect();
    rows.map_err(|index| {
        let text = format!("row {index} does not exist: the cache has {num_rows} rows, counted from 0");
        errors::of_class(py, "RowIndexError", &text)
    })
}
