//! Listing that ends when the program is asked to stop, and tells how far it is.

use crate::error::IngestError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Looked at between files, headers and pages: a listing of a network file system may take an hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cancel<'a> {
    flag: &'a AtomicBool,
    listed: &'a AtomicU64,
}

impl<'a> Cancel<'a> {
    pub(super) fn new(flag: &'a AtomicBool, listed: &'a AtomicU64) -> Cancel<'a> {
        Cancel { flag, listed }
    }

    pub(super) fn is_set(self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub(super) fn check(self) -> Result<(), IngestError> {
        if self.is_set() { Err(IngestError::Cancelled) } else { Ok(()) }
    }

    /// Counts images that were found, for whoever watches the listing.
    pub(super) fn count(self, images: u64) {
        self.listed.fetch_add(images, Ordering::Relaxed);
    }
}
