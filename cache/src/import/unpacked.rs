//! Files that may be compressed.

use crate::error::{CacheError, io_error};
use crate::import::error::import_error;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// What compressed files begin with, and what they are called.
const OTHER_FORMATS: [(&[u8], &str); 3] =
    [(b"\x28\xB5\x2F\xFD", "zstd"), (b"\xFD7zXZ\0", "xz"), (b"BZh91AY&SY", "bzip2")];

/// Opens a file from its beginning to its end; one that gzip compressed is unpacked on the way.
///
/// # Errors
/// [`CacheError::Io`]; [`CacheError::Import`] for a file that another program compressed.
pub(super) fn open_unpacked(path: &Path) -> Result<Box<dyn Read>, CacheError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut start = Vec::new();
    file.by_ref().take(10).read_to_end(&mut start).map_err(io_error("read", path))?;
    file.rewind().map_err(io_error("read", path))?;
    if start.starts_with(b"\x1F\x8B\x08") {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    match OTHER_FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => Err(import_error(path, "compression", "none or gzip: unpack it first".into(), name)),
        None => Ok(Box::new(file)),
    }
}
