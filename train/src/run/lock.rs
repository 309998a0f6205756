//! One process at a time writes to a run's folder.

use crate::TrainError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file in a run's folder.
pub(super) const LOCK: &str = ".lock";

/// An exclusive advisory lock, released when dropped or when the process dies, however it dies. The file is removed with it.
#[derive(Debug)]
pub(super) struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// Takes the lock of the run in `folder`.
    ///
    /// # Errors
    /// [`TrainError::InUse`] while another process trains in it.
    pub(super) fn take(folder: &Path) -> Result<RunLock, TrainError> {
        let path = folder.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true);
            let mut file = options.open(&path).map_err(TrainError::io("create", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    return Err(TrainError::InUse { path: folder.into(), holder: holder.trim().into() });
                }
                // Some network file systems do not support locks; training on them is still possible.
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                    tracing::warn!("{} has no file locks: see that no other process trains in it", folder.display());
                }
                Err(TryLockError::Error(e)) => return Err(TrainError::io("lock", &path)(e)),
            }
            // The holder before us removes the file when it ends: a lock on a file without a name guards nothing.
            if is_same_file(&file, &path) {
                let _ = file.set_len(0).and_then(|()| write!(file, "process {}", std::process::id()));
                return Ok(RunLock { path, file });
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while it is held, so that a process that waits for it notices that the file is another one.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let held = RunLock::take(folder.path()).unwrap();
        let refused = RunLock::take(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        RunLock::take(folder.path()).unwrap();
    }

    #[test]
    fn of_many_at_once_exactly_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(8);
        let take = || {
            barrier.wait();
            let lock = RunLock::take(folder.path());
            barrier.wait(); // no thread releases the lock before all have tried
            lock.is_ok()
        };
        for _ in 0..20 {
            let got: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
                threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
            });
            assert_eq!(got, 1);
        }
    }
}
