//! Objects kept as local files while they are read: a folder for each set of objects, shared by the processes of a machine.
//!
//! ```text
//! <stage-dir>/<id>/        the files of one set, each whole or not there
//! <stage-dir>/<id>.lock    held shared by who reads them, alone by who fetches or removes them; says which set it is
//! <stage-dir>/.room        held while room is made
//! ```
//!
//! The id is a hash of the URL and of the versions of all objects: what was published again is another set. A set that nobody
//! reads goes when room is needed, the one that was used longest ago first.

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

/// Says where objects are staged, and what they may take together there, in bytes [default: `tokengrid/stage` below the
/// user's cache folder; what is free there but for a tenth].
pub fn stage_in(folder: Option<PathBuf>, limit_bytes: Option<u64>) {
    *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner) = Settings { folder, limit_bytes };
}

/// Called while objects are staged: what, bytes so far, bytes in all.
pub type Progress = fn(&Place, u64, u64);

static PROGRESS: OnceLock<Progress> = OnceLock::new();

/// Names who hears of staging in this process. The first call counts.
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
    /// The checksum that it must have, 64 hex digits, where that is known.
    pub blake3: Option<String>,
}

/// A set of objects as local files. They stay while this lives.
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

/// Fetches what is not there yet of `files`, the set that `place` names, and keeps it from being removed. Checksums are
/// verified as the bytes pass.
///
/// # Errors
/// As the server says; [`StoreError::Checksum`]; [`StoreError::StageFull`]; [`StoreError::Io`].
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
        // A tag says all; without one the time has to do.
        add(&tag.clone().unwrap_or_else(|| modified_secs.to_string()));
        add(file.blake3.as_deref().unwrap_or_default());
    }
    hash.finalize().to_hex()[..24].to_owned()
}

#[cfg(test)]
mod tests;
