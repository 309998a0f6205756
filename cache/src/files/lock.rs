//! Locks between processes.

use crate::error::{CacheError, io_error};
use crate::files::disk::is_same_file;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// An exclusive advisory lock on a file, released when dropped (or when the process dies).
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that another thread is just starting shares the descriptor until it
        // has replaced itself, and the lock with it.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> Result<Lock, CacheError> {
        Self::acquire(path, |file| file.lock().map_err(io_error("lock", path)))
    }

    /// Takes the lock or says who is in the way.
    pub(crate) fn take(path: &Path) -> Result<Lock, CacheError> {
        Self::acquire(path, |file| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::Error(e)) => Err(io_error("lock", path)(e)),
            Err(TryLockError::WouldBlock) => {
                let folder = path.parent().unwrap_or(path).to_owned();
                Err(CacheError::Locked { path: folder, lock: path.to_owned() })
            }
        })
    }

    fn acquire(path: &Path, lock: impl Fn(&File) -> Result<(), CacheError>) -> Result<Lock, CacheError> {
        loop {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(path).map_err(io_error("create", path))?;
            lock(&file)?;
            // The holder before us may have removed the file (its job is finished): then this lock guards a file that
            // no other process will find, and the next one must be taken.
            if is_same_file(&file, path) {
                return Ok(Lock { file });
            }
        }
    }
}
