//! Files that get their final names when they are whole: of the cache itself, whose temporary names say which job they are of.

use crate::error::{CacheError, io_error};
use crate::files::small::sync_dir;
use std::fs;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file under a temporary name. Dropped without [`TempFile::publish`], it is removed.
pub(crate) struct TempFile {
    path: PathBuf,
    file: File,
    published: bool,
}

impl TempFile {
    /// Creates `path`, replacing what a dead run left there.
    pub(crate) fn create(path: PathBuf) -> Result<TempFile, CacheError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(io_error("create", &path))?;
        Ok(TempFile { path, file, published: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.file.write_all(bytes).map_err(io_error("write", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), CacheError> {
        self.file.sync_all().map_err(io_error("sync", &self.path))
    }

    /// Renames to `target` in the same folder and makes the rename durable. The content must have been synced.
    pub(crate) fn publish(mut self, target: &Path) -> Result<(), CacheError> {
        fs::rename(&self.path, target).map_err(io_error("rename to its final name", target))?;
        self.published = true;
        target.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure here; the next run of this rank removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a small file so that a reader sees all of it or nothing.
pub(crate) fn write_atomically(temp: PathBuf, target: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let mut file = TempFile::create(temp)?;
    file.write(bytes)?;
    file.sync()?;
    file.publish(target)
}
