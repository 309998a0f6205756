//! Row numbers as Python gives them, 64-bit integers of which negative ones count from the end, and what the rows hold.

use crate::{errors, interrupt};
use pyo3::prelude::*;
use tokengrid_cache::{LostPages, TokenCache};

/// Rows that are unpacked before it is asked whether to stop.
pub(crate) const PIECE_ROWS: usize = 256;

/// Checked row numbers of `cache`.
pub(crate) fn checked(py: Python<'_>, cache: &TokenCache, indices: &[i64]) -> PyResult<Vec<usize>> {
    let num_rows = cache.num_rows();
    numbers(indices, 0, num_rows).map_err(|index| {
        let text = format!("row {index} does not exist: the cache has {num_rows} rows, counted from 0");
        errors::of_class(py, "RowIndexError", &text)
    })
}

/// Rows of checked samples of a part of a cache, rows `start..start + count`.
pub(crate) fn of_samples(py: Python<'_>, samples: &[i64], start: usize, count: usize) -> PyResult<Vec<usize>> {
    numbers(samples, start, count).map_err(|sample| {
        let text = format!("sample {sample} does not exist: the data set has {count} samples, counted from 0");
        errors::of_class(py, "RowIndexError", &text)
    })
}

/// The first of `indices` that is out of range is the error.
fn numbers(indices: &[i64], start: usize, count: usize) -> Result<Vec<usize>, i64> {
    let number_of = |index: &i64| {
        let number = if *index < 0 { *index + count as i64 } else { *index };
        usize::try_from(number).ok().filter(|number| *number < count).map(|number| start + number).ok_or(*index)
    };
    indices.iter().map(number_of).collect()
}

/// Unpacks `rows` into `tokens`, `[rows, num_tokens]`, and their labels into `labels`.
pub(crate) fn fill_batch(
    py: Python<'_>,
    cache: &TokenCache,
    rows: &[usize],
    tokens: &mut [i64],
    labels: &mut [i64],
) -> PyResult<()> {
    if labels.len() != rows.len() {
        let text = format!("labels has {} elements, expected {}", labels.len(), rows.len());
        return Err(errors::of_class(py, "CacheValueError", &text));
    }
    labels.iter_mut().zip(rows).for_each(|(label, row)| *label = i64::from(cache.label(*row)));
    let bits = cache.grid().bits;
    fill(py, cache, rows, tokens, |packed, tokens| tokengrid_cache::unpack_i64(packed, bits, tokens))
}

/// Calls `unpack` with the packed grid and the place in `out` of each of `rows`.
pub(crate) fn fill<T: Send>(
    py: Python<'_>,
    cache: &TokenCache,
    rows: &[usize],
    out: &mut [T],
    mut unpack: impl FnMut(&[u8], &mut [T]) + Send,
) -> PyResult<()> {
    check_length(py, cache, rows.len(), out.len())?;
    let num_tokens = cache.grid().num_tokens();
    let mut pieces = rows.chunks(PIECE_ROWS).zip(out.chunks_mut(PIECE_ROWS * num_tokens));
    read(py, cache, || {
        let Some((rows, out)) = pieces.next() else { return false };
        let mut grids = out.chunks_exact_mut(num_tokens);
        cache.visit_packed(rows, |_, packed| {
            if let Some(tokens) = grids.next() {
                unpack(packed, tokens);
            }
        });
        true
    })
}

/// Reads piece by piece. What was read counts only if no page of it was lost.
pub(crate) fn read(py: Python<'_>, cache: &TokenCache, piece: impl FnMut() -> bool + Send) -> PyResult<()> {
    // Again, since others install handlers of their own after this package is imported: PyTorch does so in each worker.
    tokengrid_cache::handle_lost_pages(LostPages::Zeros);
    interrupt::in_pieces(py, piece)?;
    check_pages(py, cache)
}

/// Whether an array has room for the tokens of `num_rows` rows.
pub(crate) fn check_length(py: Python<'_>, cache: &TokenCache, num_rows: usize, length: usize) -> PyResult<()> {
    let num_tokens = cache.grid().num_tokens();
    if num_rows * num_tokens == length {
        return Ok(());
    }
    let text = format!("out has {length} elements, expected {num_rows} rows of {num_tokens} tokens");
    Err(errors::of_class(py, "CacheValueError", &text))
}

/// Whether a page was lost.
fn check_pages(py: Python<'_>, cache: &TokenCache) -> PyResult<()> {
    if !tokengrid_cache::lost_any_page() {
        return Ok(());
    }
    let Some(shard) = cache.lost_shard() else { return Ok(()) };
    let text = format!(
        "shard {}: a page cannot be read: the file was truncated while it was in use, or its disk fails; restore it from a copy",
        shard.display()
    );
    Err(errors::of_class(py, "DamagedCacheError", &text))
}
