//! One set of staged files: its lock, and fetching what is missing.

use super::{Progress, StageFile};
use crate::bucket::Bucket;
use crate::error::StoreError;
use crate::place::Place;
use crate::runtime::is_cancelled;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Objects that are fetched at once; each is a stream with its own read-ahead.
const DOWNLOADS: usize = 4;

/// A held lock of a set.
#[derive(Debug)]
pub(super) struct Entry {
    file: File,
    path: PathBuf,
    /// The process that holds it.
    owner: u32,
}

impl Entry {
    /// The lock of a reader; others may read at the same time.
    pub(super) fn read(root: &Path, id: &str) -> Result<Entry, StoreError> {
        Entry::locked(root.join(format!("{id}.lock")), File::try_lock_shared)
    }

    /// The lock of who fetches, beside that of who reads: waits for another process that does.
    pub(super) fn fetching(root: &Path, id: &str) -> Result<Entry, StoreError> {
        Entry::locked(root.join(format!("{id}.fetch")), File::try_lock)
    }

    /// The same without waiting; `None` while another process fetches.
    pub(super) fn try_fetching(root: &Path, id: &str) -> Result<Option<Entry>, StoreError> {
        let path = root.join(format!("{id}.fetch"));
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Entry::held(file, path))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
        }
    }

    /// The lock for removing a set; `None` while it is in use.
    pub(super) fn try_write(path: &Path) -> Option<Entry> {
        let file = OpenOptions::new().write(true).open(path).ok()?;
        file.try_lock().ok()?;
        is_at(&file, path).then(|| Entry::held(file, path.to_owned()))
    }

    fn held(file: File, path: PathBuf) -> Entry {
        Entry { file, path, owner: std::process::id() }
    }

    fn locked(path: PathBuf, lock: fn(&File) -> Result<(), TryLockError>) -> Result<Entry, StoreError> {
        loop {
            let file = open(&path)?;
            wait_for(&file, &path, lock)?;
            // The last holder may have removed the file: a lock on a removed file excludes no process.
            if is_at(&file, &path) {
                return Ok(Entry::held(file, path));
            }
        }
    }

    /// Writes the set's URL into the lock file, whose modification time says when the set was last used.
    pub(super) fn touch(&self, place: &Place) -> Result<(), StoreError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| writeln!(file, "{place}"))
            .map_err(StoreError::io("write", &self.path))
    }

    /// Removes the set and its lock.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        let folder = self.path.with_extension("");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { action: "remove", path: folder, source: error })
            }
            _ => {
                // Nobody holds it: who fetches holds this one as well.
                let _ = fs::remove_file(self.path.with_extension("fetch"));
                fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A child process that is being started may share the descriptor. A forked one that drops its copy must not take the
        // lock from its parent.
        if self.owner == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(path);
    file.map_err(StoreError::io("open", path))
}

/// How often one looks whether a lock is free.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits for a lock, or until the program is to stop: another process may fetch for hours.
fn wait_for(file: &File, path: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> Result<(), StoreError> {
    loop {
        match lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if is_cancelled() => return Err(StoreError::Cancelled),
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK_EVERY),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

/// What is fetched, and into which folder.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) folder: &'a Path,
    pub(super) place: &'a Place,
    pub(super) bucket: &'a Bucket,
}

/// Who looks on.
pub(super) struct Watch<'a> {
    pub(super) progress: Option<Progress>,
    pub(super) is_stopped: &'a (dyn Fn() -> bool + Sync),
    /// Called with the place of each file that is there.
    pub(super) done: &'a (dyn Fn(usize) + Sync),
}

/// Fetches files into the folder, several at once, in their order.
pub(super) fn fetch_all(target: Target<'_>, files: &[&StageFile], watch: &Watch<'_>) -> Result<(), StoreError> {
    let total: u64 = files.iter().map(|file| file.object.bytes).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let tell = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = watch.progress {
            progress(target.place, done, total);
        }
        if (watch.is_stopped)() { Err(StoreError::Cancelled) } else { Ok(()) }
    };
    let work = || -> Result<(), StoreError> {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(nth) else { return Ok(()) };
            let fetched = fetch(target.folder, target.bucket, file, &tell);
            if fetched.is_err() {
                // The other threads finish their file and take no further one.
                next.store(files.len(), Ordering::Relaxed);
            }
            fetched?;
            (watch.done)(nth);
        }
    };
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..DOWNLOADS.min(files.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = helpers.into_iter().map(|helper| helper.join().unwrap_or(Err(StoreError::Cancelled)));
        others.fold(own, |first, other| first.and(other))
    })
}

/// Fetches one file under a temporary name, checks it, and gives it its own.
fn fetch(
    folder: &Path,
    bucket: &Bucket,
    file: &StageFile,
    tell: &impl Fn(u64) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let target = folder.join(&file.name);
    let parent = target.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
    let temporary = target.with_file_name(format!(".{}.tmp", target.file_name().unwrap_or_default().to_string_lossy()));
    let mut local = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    let mut hash = file.blake3.as_ref().map(|_| blake3::Hasher::new());
    let mut download = bucket.download(&file.object);
    let mut copy = || -> Result<(), StoreError> {
        while let Some(bytes) = download.next_range()? {
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            local.write_all(&bytes).map_err(StoreError::io("write", &temporary))?;
            tell(bytes.len() as u64)?;
        }
        local.sync_all().map_err(StoreError::io("write", &temporary))
    };
    let checked = copy().and_then(|()| match (&file.blake3, hash) {
        (Some(expected), Some(hash)) => {
            let actual = hash.finalize().to_hex().to_string();
            let place = bucket.place(&file.object.key);
            if actual == *expected {
                Ok(())
            } else {
                Err(StoreError::Checksum { place, expected: expected.clone(), actual })
            }
        }
        _ => Ok(()),
    });
    if checked.is_err() {
        let _ = fs::remove_file(&temporary);
        return checked;
    }
    fs::rename(&temporary, &target).map_err(StoreError::io("rename", &target))
}
