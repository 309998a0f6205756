//! Objects kept as local files while they are read: a folder for each set of objects, shared by the processes of a machine.
//!
//! ```text
//! <stage-dir>/<id>/        the files of one set, each whole or not there
//! <stage-dir>/<id>.lock    held shared by who reads or fetches them, alone by who removes them; says which set it is
//! <stage-dir>/<id>.fetch   held by who fetches
//! <stage-dir>/.room        held while room is made
//! ```
//!
//! The id is a hash of the URL and of the versions of all objects, so a set that was published again has another id. Sets that
//! no process reads are removed when space is needed, the least recently used one first.

mod entry;
mod room;
mod single;

use crate::bucket::{Bucket, Object};
use crate::error::StoreError;
use crate::place::Place;
use entry::Entry;
pub use room::stage_room;
use room::{make_room, room_for_first};
pub use single::LocalFile;
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
    let staging = Staging::begin(place, bucket, files.to_vec())?;
    if !staging.is_complete() {
        let _fetching = Entry::fetching(&staging.root, &staging.id)?;
        let missing = staging.missing(0..files.len());
        let needed = missing.iter().map(|file| files[*file].object.bytes).sum();
        make_room(&staging.root, &staging.id, place, needed, settings().limit_bytes)?;
        staging.fetch_all(&missing, &|| false, &|_| {})?;
    }
    Ok(Staged { folder: staging.folder, _entry: staging.entry })
}

/// A set of objects that become local files one after the other. They stay while this lives.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    id: String,
    folder: PathBuf,
    place: Place,
    bucket: Bucket,
    files: Vec<StageFile>,
    entry: Entry,
}

/// What became of files that [`Staging::fetch`] was to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetching {
    /// Another process of this machine is fetching files of the set.
    ByAnother,
    /// They are staged, except for the last ones if there is no room for them.
    Done {
        /// Files without room.
        left_out: usize,
    },
}

impl Staging {
    /// Protects the staged ones of `files`, the set that `place` names, from removal. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn begin(place: &Place, bucket: &Bucket, files: Vec<StageFile>) -> Result<Staging, StoreError> {
        let root = stage_folder();
        std::fs::create_dir_all(&root).map_err(StoreError::io("create", &root))?;
        let id = id_of(place, &files);
        let entry = Entry::read(&root, &id)?;
        entry.touch(place)?;
        let (folder, place, bucket) = (root.join(&id), place.clone(), bucket.clone());
        Ok(Staging { root, id, folder, place, bucket, files, entry })
    }

    /// The local copy of a file, by its place in the set, once it is whole and checked.
    pub fn path(&self, file: usize) -> Option<PathBuf> {
        let file = self.files.get(file)?;
        is_there(&self.folder, file).then(|| self.folder.join(&file.name))
    }

    /// Whether all files are there.
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(|file| is_there(&self.folder, file))
    }

    /// Which of the last of `wanted` there is no room for, after unused sets have made room for the first.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn without_room(&self, wanted: &[usize]) -> Result<Vec<usize>, StoreError> {
        let mut missing = self.missing(wanted.iter().copied());
        let sizes: Vec<u64> = missing.iter().map(|file| self.files[*file].object.bytes).collect();
        let fitting = room_for_first(&self.root, &self.id, &sizes, settings().limit_bytes)?;
        Ok(missing.split_off(fitting))
    }

    /// Fetches files by their places in the set, several at once in this order, and calls `done` with each that is there. Where
    /// not all have room, the first that do.
    ///
    /// # Errors
    /// As for [`stage()`]; [`StoreError::Cancelled`] once `is_stopped` returns true.
    pub fn fetch(
        &self,
        wanted: &[usize],
        is_stopped: &(dyn Fn() -> bool + Sync),
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<Fetching, StoreError> {
        let Some(_fetching) = Entry::try_fetching(&self.root, &self.id)? else { return Ok(Fetching::ByAnother) };
        let left_out = self.without_room(wanted)?.len();
        let missing = self.missing(wanted.iter().copied());
        self.fetch_all(&missing[..missing.len() - left_out], is_stopped, done)?;
        Ok(Fetching::Done { left_out })
    }

    fn missing(&self, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
        wanted.into_iter().filter(|file| !is_there(&self.folder, &self.files[*file])).collect()
    }

    fn fetch_all(
        &self,
        missing: &[usize],
        is_stopped: &(dyn Fn() -> bool + Sync),
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<(), StoreError> {
        let files: Vec<&StageFile> = missing.iter().map(|file| &self.files[*file]).collect();
        let target = entry::Target { folder: &self.folder, place: &self.place, bucket: &self.bucket };
        let watch = entry::Watch { progress: PROGRESS.get().copied(), is_stopped, done: &|nth| done(missing[nth]) };
        entry::fetch_all(target, &files, &watch)
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
