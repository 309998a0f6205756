//! What does not fit in an input.

use crate::error::CacheError;
use std::path::Path;

pub(crate) fn import_error(
    path: &Path,
    what: &'static str,
    expected: String,
    actual: impl std::fmt::Display,
) -> CacheError {
    CacheError::Import { path: path.into(), what, expected, actual: actual.to_string() }
}
