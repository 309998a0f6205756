//! The list of inputs without rows, `quarantine.jsonl`, read.

use std::path::Path;

use crate::error::CacheError;
use crate::fsio::read_at_most;
use crate::hash::blake3_hex;
use crate::manifest::{Manifest, QUARANTINE_FILE};
use crate::writer::QuarantineRecord;

/// Longer lists are not read: two million inputs.
const QUARANTINE_BYTES_MAX: u64 = 512 << 20;

/// The inputs of a cache that have no rows, in the order of the source, after checking the list against the manifest.
///
/// # Errors
/// [`CacheError::Io`]; [`CacheError::TooLarge`] and [`CacheError::Import`] when the list was altered.
pub fn read_quarantine(dir: &Path, manifest: &Manifest) -> Result<Vec<QuarantineRecord>, CacheError> {
    let path = dir.join(QUARANTINE_FILE);
    // The manifest says how long the list is, so that nothing longer is read; an absurd manifest is not believed.
    let bytes_max = manifest.quarantine.bytes.min(QUARANTINE_BYTES_MAX);
    let text = read_at_most(&path, bytes_max)?;
    let altered = |expected: &str, actual: String| CacheError::Import {
        path: path.clone(),
        what: "checksum",
        expected: expected.to_owned(),
        actual,
    };
    let actual = blake3_hex(&text);
    if actual != manifest.quarantine.blake3 {
        return Err(altered(&manifest.quarantine.blake3, actual));
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Result<Vec<QuarantineRecord>, _> = lines.map(serde_json::from_slice).collect();
    records.map_err(|source| CacheError::ManifestSyntax { path: path.clone(), source })
}
