//! The checksum of a manifest, which is its last field.

use crate::error::CacheError;
use crate::format::hash::blake3_hex;
use crate::format::text::shown;
use std::path::Path;

/// The text must end in `"checksum": "<64 hex digits>"\n}\n`, and the digits be the hash of the text with zeros there.
/// So every byte of the file counts, blanks included.
pub(super) fn check_signature(path: &Path, text: &[u8]) -> Result<(), CacheError> {
    const PREFIX: &[u8] = b"\"checksum\": \"";
    const SUFFIX: &[u8] = b"\"\n}\n";
    let digits_end = text.len().checked_sub(SUFFIX.len()).filter(|end| &text[*end..] == SUFFIX);
    let digits = digits_end.and_then(|end| Some(end.checked_sub(64)?..end));
    let Some(digits) = digits.filter(|digits| text[..digits.start].ends_with(PREFIX)) else {
        return Err(field_error(path, "checksum", "the last field, laid out as written".into(), "elsewhere".into()));
    };
    let actual = String::from_utf8_lossy(&text[digits.clone()]).into_owned();
    let mut unsigned = text.to_vec();
    unsigned[digits].fill(b'0');
    let expected = blake3_hex(&unsigned);
    if actual == expected { Ok(()) } else { Err(CacheError::ManifestChecksum { path: path.into(), expected, actual }) }
}

pub(super) fn field_error(path: &Path, field: &'static str, expected: String, actual: String) -> CacheError {
    let [expected, actual] = [expected, actual].map(|text| shown(&text));
    CacheError::ManifestField { path: path.into(), field, expected, actual }
}
