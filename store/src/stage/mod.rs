//! Objects kept as local files while they are read: a folder for each set of objects, shared by the processes of a machine.
//!
//! ```text
//! <stage-dir>/<id>/        the files of one set, each whole or not there
//! <stage-dir>/<id>.lock    held shared by who reads them, alone by who fetches or removes them; says which set it is
//! <stage-dir>/.room        held while room is made
//! ```
//!
//! The id is a hash of the URL and of the versions of all objects, so a set that was published again has another id. Sets that
//! nobody reads are removed when space is needed, the least recently used one first.

mod entry;
mod room;

use crate::bucket::{Bucket, Object};
use crate::error::StoreError;
use crate::place::Place;
use entry::Entry;
use room::make_room;
pub use room::stage_room;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the user chose, for this process.
static SETTINGS: Mutex<Settings> = Mutex::new(Settings { folder: None, limit_bytes: None });

#[derive(Debug, Clone)]
struct Settings {
    folder: Option<PathBuf>,
    limit_bytes: Option<u64>,
}

/// Sets the folder in which objects are staged, and how many bytes they may take there together [default: `tokengrid/stage` below
/// the user's cache folder; nine tenths of the free space].
pub fn stage_in(folder: Option<PathBuf>, limit_bytes: Option<u64>) {
    *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner) = Settings { folder, limit_bytes };
}

/// Called while objects are staged: the set, bytes fetched so far, bytes to fetch in all.
pub type Progress = fn(&Place, u64, u64);

static PROGRESS: OnceLock<Progress> = OnceLock::new();

/// Sets the function that reports staging in this process. Later calls have no effect.
pub fn on_stage(progress: Progress) {
    let _ = PROGRESS.set(progress);
}

fn settings() -> Settings {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The folder below which objects are staged.
pub fn stage_folder() -> PathBuf {
    settings().folder.unwrap_or_else(|| {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        caches.unwrap_or_else(std::env::temp_dir).join("tokengrid/stage")
    })
}

/// An object to be staged.
#[derive(Debug, Clone)]
pub struct StageFile {
    /// The object, in the version that was listed.
    pub object: Object,
    /// Its name in the folder: relative, without `..`.
    pub name: String,
    /// The BLAKE3 hash that its contents must have, 64 hex digits; `None` where it is not known.
    pub blake3: Option<String>,
}

/// A set of objects as local files, which are not removed while this value exists.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    _entry: Entry,
}

impl Staged {
    /// The folder with the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Fetches those of `files`, the set that `place` names, that are not staged yet, and keeps all of them from being removed.
/// Checksums are verified while the bytes arrive.
///
/// # Errors
/// [`StoreError::Checksum`]; [`StoreError::StageFull`]; [`StoreError::Io`]; as [`Fetch::wait`](crate::Fetch::wait).
pub fn stage(place: &Place, bucket: &Bucket, files: &[StageFile]) -> Result<Staged, StoreError> {
    let root = stage_folder();
    std::fs::create_dir_all(&root).map_err(StoreError::io("create", &root))?;
    let id = id_of(place, files);
    let folder = root.join(&id);
    loop {
        let shared = Entry::read(&root, &id)?;
        if files.iter().all(|file| is_there(&folder, file)) {
            shared.touch(place)?;
            return Ok(Staged { folder, _entry: shared });
        }
        drop(shared);
        let alone = Entry::write(&root, &id)?;
        alone.touch(place)?;
        let missing: Vec<&StageFile> = files.iter().filter(|file| !is_there(&folder, file)).collect();
        let needed = missing.iter().map(|file| file.object.bytes).sum();
        make_room(&root, &id, place, needed, settings().limit_bytes)?;
        entry::fetch_all(&folder, place, bucket, &missing, PROGRESS.get().copied())?;
        // Between the two locks somebody may remove it: then it is fetched again.
        drop(alone);
    }
}

fn is_there(folder: &Path, file: &StageFile) -> bool {
    std::fs::metadata(folder.join(&file.name)).is_ok_and(|found| found.is_file() && found.len() == file.object.bytes)
}

fn id_of(place: &Place, files: &[StageFile]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut add = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    add(&place.to_string());
    for file in files {
        let Object { key, bytes, tag, modified_secs } = &file.object;
        add(&file.name);
        add(key);
        add(&bytes.to_string());
        // A tag identifies the version; without one the modification time has to.
        add(&tag.clone().unwrap_or_else(|| modified_secs.to_string()));
        add(file.blake3.as_deref().unwrap_or_default());
    }
    hash.finalize().to_hex()[..24].to_owned()
}

#[cfg(test)]
mod tests;
