//! Small files and folders: read with a bound, listed, removed, made durable.

use crate::error::{CacheError, io_error};
use crate::files::disk::sync_folder;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::{fs, io};

/// Makes renames and creations in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), CacheError> {
    sync_folder(dir).map_err(io_error("sync folder", dir))
}

/// Reads a whole file that has no business to be larger than `bytes_max`.
///
/// # Errors
/// [`CacheError::TooLarge`], before anything is read; [`CacheError::Io`].
pub(crate) fn read_at_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CacheError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
    let mut content = Vec::new();
    // The file may grow meanwhile, and a pipe has no size.
    if bytes <= bytes_max {
        file.take(bytes_max + 1).read_to_end(&mut content).map_err(io_error("read", path))?;
    }
    let bytes = bytes.max(content.len() as u64);
    if bytes > bytes_max {
        return Err(CacheError::TooLarge { path: path.into(), bytes, bytes_max });
    }
    Ok(content)
}

/// Whether an error is that there is no such file.
pub(crate) fn is_missing(error: &CacheError) -> bool {
    matches!(error, CacheError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Removes a file that may not exist any more.
pub(crate) fn remove_if_present(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The names in a folder (UTF-8 ones; no file of ours has another), sorted.
pub(crate) fn list_names(dir: &Path) -> Result<Vec<String>, CacheError> {
    let entries = fs::read_dir(dir).map_err(io_error("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(io_error("list", dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
