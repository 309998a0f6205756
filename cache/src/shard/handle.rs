//! A file that is open only while it is read: a cache may have more shards than a process may have open files.

use crate::error::{CacheError, io_error};
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A shard's file, which can be closed and opened again.
pub(crate) struct Handle {
    path: PathBuf,
    id: FileId,
    open: Mutex<Option<Arc<File>>>,
}

impl Handle {
    /// Takes an open file.
    pub(super) fn new(path: &Path, file: File) -> Result<Handle, CacheError> {
        let id = FileId::of(&file.metadata().map_err(io_error("read the size of", path))?);
        Ok(Handle { path: path.into(), id, open: Mutex::new(Some(Arc::new(file))) })
    }

    /// That of a shard which is not on this machine.
    pub(super) fn absent(path: &Path) -> Handle {
        Handle { path: path.into(), id: FileId::NONE, open: Mutex::new(None) }
    }

    /// The file, if it is open.
    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file, opened if need be; it then stays open until [`Handle::close`].
    ///
    /// # Errors
    /// [`CacheError::Replaced`] when another file has the name by now; [`CacheError::Io`].
    pub(crate) fn file(&self) -> Result<Arc<File>, CacheError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*open {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        let found = FileId::of(&file.metadata().map_err(io_error("read the size of", &self.path))?);
        if found != self.id {
            return Err(CacheError::Replaced { path: self.path.clone() });
        }
        Ok(Arc::clone(open.insert(Arc::new(file))))
    }

    /// Gives the descriptor back.
    pub(crate) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Identity of the file, independent of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(unix)]
struct FileId(u64, u64);

#[cfg(unix)]
impl FileId {
    /// No file has this number.
    const NONE: FileId = FileId(0, 0);

    fn of(file: &Metadata) -> FileId {
        use std::os::unix::fs::MetadataExt;
        FileId(file.dev(), file.ino())
    }
}

/// Elsewhere a mapped file can be neither removed nor replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(not(unix))]
struct FileId;

#[cfg(not(unix))]
impl FileId {
    const NONE: FileId = FileId;

    fn of(_: &Metadata) -> FileId {
        FileId
    }
}
