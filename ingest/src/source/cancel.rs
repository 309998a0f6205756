//! Listing that ends when the program is asked to stop.

use crate::error::IngestError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Looked at between files, headers and pages: a listing of a network file system may take an hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cancel<'a>(pub(super) &'a AtomicBool);

impl Cancel<'_> {
    pub(super) fn is_set(self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(self) -> Result<(), IngestError> {
        if self.is_set() { Err(IngestError::Cancelled) } else { Ok(()) }
    }
}
