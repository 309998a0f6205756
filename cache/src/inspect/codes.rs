//! Rows in which a code occurs.

use crate::error::CacheError;
use crate::parallel::{self, num_threads};
use crate::read::cache::TokenCache;
use crate::unpack::Kernels;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows that are read at a time.
const BLOCK_ROWS: usize = 256;

/// Rows that a thread takes at a time.
const PIECE_ROWS: usize = 1 << 16;

/// The rows of which a token has the code `code`, in row order: reads every row, on all cores. `cancel` ends the search.
/// Memory: 4 bytes per row that is found.
///
/// # Errors
/// [`CacheError::Cancelled`]; as [`TokenCache::read_packed`]. A code that the grid's bits cannot hold is found nowhere.
///
/// # Panics
/// When the cache has more than 2^32 rows.
pub fn rows_with_code(cache: &TokenCache, code: u32, cancel: &AtomicBool) -> Result<Vec<u32>, CacheError> {
    let grid = cache.grid();
    let kernels = Kernels::best(grid.bits);
    let pieces = cache.num_rows().div_ceil(PIECE_ROWS);
    let found = parallel::map(num_threads(), pieces, &mut |_| {}, |piece, _| {
        let rows = piece * PIECE_ROWS..((piece + 1) * PIECE_ROWS).min(cache.num_rows());
        let (mut packed, mut tokens) = (Vec::new(), vec![0; grid.num_tokens()]);
        let mut found = Vec::new();
        for start in rows.clone().step_by(BLOCK_ROWS) {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            let block = start..(start + BLOCK_ROWS).min(rows.end);
            cache.read_packed(block.clone(), &mut packed)?;
            for (row, grid) in block.zip(packed.chunks_exact(grid.row_bytes())) {
                kernels.narrow(grid, &mut tokens);
                if tokens.contains(&code) {
                    found.push(u32::try_from(row).expect("fewer than 2^32 rows"));
                }
            }
        }
        Ok(found)
    })?;
    Ok(found.concat())
}
