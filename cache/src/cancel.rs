//! Cancellation: long reads of this crate end when the program is to stop.

use crate::error::CacheError;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FLAG: OnceLock<&'static AtomicBool> = OnceLock::new();

/// Names the flag of this process that ends long reads: once it is true, [`crate::verify()`], [`crate::diff`],
/// [`crate::merge()`], [`crate::subset`], imports, exports and [`crate::LoaderBench::run`] return
/// [`CacheError::Cancelled`]. What a [`crate::CacheWriter`] has begun to write is finished. The first call counts.
pub fn cancel_with(flag: &'static AtomicBool) {
    let _ = FLAG.set(flag);
}

/// Called between two units of work.
pub(crate) fn check() -> Result<(), CacheError> {
    match FLAG.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err(CacheError::Cancelled),
        _ => Ok(()),
    }
}
