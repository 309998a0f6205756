//! Space for staged files: unused sets are removed, the least recently used one first.

use super::entry::Entry;
use super::{settings, stage_folder};
use crate::error::StoreError;
use crate::place::Place;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One in this many of the free bytes stays free, unless the user sets a limit.
const KEPT_FREE_SHARE: u64 = 10;

/// Bytes that staged files may take together. A source whose containers are larger is read by ranges instead.
pub fn stage_room() -> u64 {
    let root = stage_folder();
    let used: u64 = sets(&root).iter().map(|set| set.bytes).sum();
    limit(&root, used, settings().limit_bytes)
}

fn limit(root: &Path, used: u64, chosen: Option<u64>) -> u64 {
    let free = free_bytes(root);
    chosen.unwrap_or(u64::MAX).min(used.saturating_add(free - free / KEPT_FREE_SHARE))
}

/// Removes sets until `needed` bytes more than there are of the set `id` fit.
pub(super) fn make_room(
    root: &Path,
    id: &str,
    place: &Place,
    needed: u64,
    chosen: Option<u64>,
) -> Result<(), StoreError> {
    let (used, limit) = evict(root, id, needed, chosen)?;
    if used.saturating_add(needed) <= limit {
        return Ok(());
    }
    let (place, folder, free) = (place.clone(), root.to_owned(), free_bytes(root));
    Err(StoreError::StageFull { place, folder, needed, limit, free })
}

/// The same for files of these sizes: how many of the first of them fit.
pub(super) fn room_for_first(root: &Path, id: &str, sizes: &[u64], chosen: Option<u64>) -> Result<usize, StoreError> {
    let (mut used, limit) = evict(root, id, sizes.iter().sum(), chosen)?;
    let fits = |size: &&u64| {
        used = used.saturating_add(**size);
        used <= limit
    };
    Ok(sizes.iter().take_while(fits).count())
}

/// Removes unused sets, until `needed` bytes more fit or none is left to remove: the bytes that are staged then, and
/// how many may be.
fn evict(root: &Path, id: &str, needed: u64, chosen: Option<u64>) -> Result<(u64, u64), StoreError> {
    let path = root.join(".room");
    let room = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let room = room.map_err(StoreError::io("open", &path))?;
    room.lock().map_err(StoreError::io("lock", &path))?;
    let mut all = sets(root);
    all.sort_by_key(|set| set.used_at);
    let mut used: u64 = all.iter().map(|set| set.bytes).sum();
    let limit = limit(root, used, chosen);
    for set in all.into_iter().filter(|set| set.id != id) {
        if used.saturating_add(needed) <= limit {
            break;
        }
        if let Some(entry) = Entry::try_write(&set.lock) {
            entry.remove()?;
            used -= set.bytes;
        }
    }
    Ok((used, limit))
}

/// A set that is staged, whole or in part.
struct Set {
    id: String,
    lock: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

fn sets(root: &Path) -> Vec<Set> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|end| end == "lock");
    let locks = entries.map(|entry| entry.path()).filter(is_lock);
    let set = |lock: PathBuf| {
        let used_at = fs::metadata(&lock).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let id = lock.file_stem()?.to_str()?.to_owned();
        Some(Set { bytes: bytes_below(&root.join(&id)), id, lock, used_at })
    };
    locks.filter_map(set).collect()
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// Free bytes of the file system of a folder or, while that does not exist, of its nearest existing ancestor.
fn free_bytes(folder: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let Ok(name) = std::ffi::CString::new(existing.as_os_str().as_bytes()) else { return 0 };
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name is NUL-terminated, and the buffer has the size of the struct that the call fills.
    let is_known = unsafe { libc::statvfs(name.as_ptr(), found.as_mut_ptr()) } == 0;
    if !is_known {
        return 0;
    }
    // SAFETY: the call succeeded, so the struct is filled.
    let found = unsafe { found.assume_init() };
    found.f_bavail * found.f_frsize
}
