//! Files of other programs that are kept beside a cache's rows, and known by their checksums.

use crate::error::{CacheError, io_error};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The folder, in that of a cache, that such files lie in.
pub const ATTACHED_FOLDER: &str = "attached";

/// A file that is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedFile {
    /// Size of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
}

impl AttachedFile {
    /// What the file at `path` is.
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::Cancelled`].
    pub(crate) fn of(path: &Path) -> Result<AttachedFile, CacheError> {
        let mut hasher = blake3::Hasher::new();
        let bytes = visit_chunks(path, &mut |chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        Ok(AttachedFile { bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// Hands on a file's bytes, some at a time; returns how many there were.
pub(crate) fn visit_chunks(
    path: &Path,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), CacheError>,
) -> Result<u64, CacheError> {
    const CHUNK_BYTES: usize = 1 << 20;
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let (mut chunk, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let read = match file.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(io_error("read", path))?,
        };
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        visit(&chunk[..read])?;
        crate::cancel::check()?;
    }
}

/// Where the attached file `name` of the cache in `dir` lies; `None` for a name that would lead out of its folder, which
/// only a forged manifest has.
pub(crate) fn attached_path(dir: &Path, name: &str) -> Option<PathBuf> {
    let relative = Path::new(name);
    let is_below = !name.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| dir.join(ATTACHED_FOLDER).join(relative))
}
