//! What a repair needs, and what it did.

use crate::error::CacheError;
use crate::format::quarantine::QuarantineRecord;
use crate::format::row::Row;
use crate::integrity::verify::Problem;
use serde::Serialize;

/// The outcome of encoding an image again.
#[derive(Clone, Debug)]
pub enum Encoded<'a> {
    /// Its rows: all views, in order.
    Rows(&'a [Row<'a>]),
    /// It cannot be decoded, and was so when the cache was written.
    Quarantined(QuarantineRecord),
}

/// Takes one image that was encoded again.
pub type Deliver<'a> = dyn FnMut(usize, Encoded<'_>) -> Result<(), CacheError> + 'a;

/// Encodes images again: called with their numbers in the source, ascending; must deliver each of them, in order.
pub type Encode<'a> =
    dyn FnMut(&[usize], &mut Deliver<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What [`crate::repair()`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was wrong before.
    pub found: Vec<Problem>,
    /// What is still wrong: files that do not belong to the cache, which are left to their owner.
    pub remaining: Vec<Problem>,
    /// Whether the manifest was made again.
    pub manifest_rebuilt: bool,
    /// Whether the quarantine list was made again.
    pub quarantine_rebuilt: bool,
    /// Shards that were written again.
    pub shards: Vec<String>,
    /// Row groups that were encoded again; the others were kept.
    pub row_groups_encoded: usize,
    /// Images that were encoded again.
    pub images_encoded: usize,
}

impl RepairReport {
    /// Whether the cache is whole now.
    pub fn is_ok(&self) -> bool {
        self.remaining.is_empty()
    }
}
