//! Files: errors with their path, publication by rename, locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::atomic::sync_folder;
use crate::error::CacheError;

/// Turns an I/O error into ours, naming the path and giving the two failures that have a remedy their own variants.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CacheError::DiskFull { path, source },
        io::ErrorKind::ReadOnlyFilesystem => CacheError::ReadOnly { path, source },
        _ => CacheError::Io { action, path, source },
    }
}

/// Makes renames and creations in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), CacheError> {
    sync_folder(dir).map_err(io_error("sync folder", dir))
}

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

/// Removes a file that may be gone already.
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
            // nobody else will find, and the next one must be taken.
            if is_same_file(&file, path) {
                return Ok(Lock { file });
            }
        }
    }
}

/// Whether an open file is still the one at `path`.
#[cfg(unix)]
pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_same_file(_: &File, path: &Path) -> bool {
    path.exists()
}
