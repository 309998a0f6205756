//! Reading the rows of some images of a class.

use crate::error::CacheError;
use crate::read::cache::TokenCache;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that are read at a time.
pub(super) const BLOCK_ROWS: usize = 1024;

/// Calls `visit` with the number and the packed grid of each row of `images`, numbers of images in ascending order; `report` with
/// numbers of rows.
///
/// # Errors
/// [`CacheError::Cancelled`] once `cancel` is set; as [`TokenCache::read_packed`].
pub(crate) fn visit_rows(
    cache: &TokenCache,
    images: &[u32],
    cancel: &AtomicBool,
    report: &dyn Fn(u64),
    visit: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), CacheError> {
    let views = cache.num_views();
    let mut packed = Vec::new();
    // Images that follow each other in the cache are read together.
    for run in images.chunk_by(|a, b| a + 1 == *b) {
        for block in run.chunks((BLOCK_ROWS / views).max(1)) {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            let first = block[0] as usize * views;
            let rows = first..first + block.len() * views;
            cache.read_packed(rows.clone(), &mut packed)?;
            for (row, grid) in rows.clone().zip(packed.chunks_exact(cache.grid().row_bytes())) {
                visit(row, grid);
            }
            report(rows.len() as u64);
        }
    }
    Ok(())
}
