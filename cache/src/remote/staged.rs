//! A cache's folder on this machine: itself, or a staged copy of what lies in a bucket.

use crate::error::CacheError;
use crate::format::attached::{ATTACHED_FOLDER, AttachedFile, attached_path};
use crate::format::hash::blake3_hex;
use crate::format::manifest::Manifest;
use crate::format::names::{MANIFEST_FILE, Name, QUARANTINE_FILE};
use std::path::{Path, PathBuf};
use tokengrid_store::{Bucket, Object, Place, StageFile, Staged, StoreError, stage};

/// A folder with a cache's files, which stays while this lives.
#[derive(Debug)]
pub(crate) struct LocalFolder {
    folder: PathBuf,
    _staged: Option<Staged>,
}

impl LocalFolder {
    /// The folder of the cache at `dir`, a path or a URL. What is fetched is compared with the manifest's checksums.
    pub(crate) fn of(dir: &Path) -> Result<LocalFolder, CacheError> {
        LocalFolder::fetch(dir, true)
    }

    /// The same without comparing: for [`crate::verify()`], which reads every byte anyway, and reports all that is damaged.
    pub(crate) fn unchecked(dir: &Path) -> Result<LocalFolder, CacheError> {
        LocalFolder::fetch(dir, false)
    }

    fn fetch(dir: &Path, is_checked: bool) -> Result<LocalFolder, CacheError> {
        let Some(place) = Place::parse(dir)? else {
            return Ok(LocalFolder { folder: dir.to_owned(), _staged: None });
        };
        let bucket = Bucket::of(&place)?;
        let (manifest, text) = read_manifest(dir, &place, &bucket)?;
        let mut files = files_of(&place, &manifest, &text);
        if !is_checked {
            files.extend(attached_files(&place, &manifest));
            for file in std::mem::take(&mut files) {
                // Any existing files; the caller finds the missing ones.
                let found = bucket.head(&file.object.key)?;
                files.extend(found.map(|object| StageFile { object, blake3: None, ..file }));
            }
        }
        let staged = stage(&place, &bucket, &files)?;
        Ok(LocalFolder { folder: staged.folder().to_owned(), _staged: Some(staged) })
    }

    /// The folder of the files that are attached to the cache at `dir`, whose manifest this is: of a cache in a bucket, of copies
    /// that were compared with its checksums. No reader of rows needs them, so they are a set of their own.
    pub(crate) fn of_attached(dir: &Path, manifest: &Manifest) -> Result<LocalFolder, CacheError> {
        let place = Place::parse(dir)?.filter(|_| !manifest.source.attached.is_empty());
        let Some(place) = place else { return Ok(LocalFolder { folder: dir.to_owned(), _staged: None }) };
        let bucket = Bucket::of(&place)?;
        let staged = stage(&place, &bucket, &attached_files(&place, manifest))?;
        Ok(LocalFolder { folder: staged.folder().to_owned(), _staged: Some(staged) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

/// The files of a cache: its shards in their order, then the others.
pub(super) fn files_of(place: &Place, manifest: &Manifest, text: &[u8]) -> Vec<StageFile> {
    let shards = manifest.shards.iter().map(|shard| (shard.file.as_str(), shard.bytes, shard.blake3.clone()));
    let list = (QUARANTINE_FILE, manifest.quarantine.bytes, manifest.quarantine.blake3.clone());
    let own = (MANIFEST_FILE, text.len() as u64, blake3_hex(text));
    let file = |(name, bytes, blake3): (&str, u64, String)| StageFile {
        object: object_of(place, name, bytes),
        name: name.to_owned(),
        blake3: Some(blake3),
    };
    shards.chain([list, own]).map(file).collect()
}

/// Files of other programs that belong to a cache. Names that would lead out of the folder are left out: only a forged manifest has
/// them, and who reads the files refuses them.
fn attached_files(place: &Place, manifest: &Manifest) -> Vec<StageFile> {
    let files = manifest.source.attached.iter().filter(|(name, _)| attached_path(Path::new(""), name).is_some());
    let file = |(name, file): (&String, &AttachedFile)| {
        let name = format!("{ATTACHED_FOLDER}/{name}");
        StageFile { object: object_of(place, &name, file.bytes), name, blake3: Some(file.blake3.clone()) }
    };
    files.map(file).collect()
}

/// The object of a file as the manifest has it: its checksum determines the version.
fn object_of(place: &Place, name: &str, bytes: u64) -> Object {
    Object { key: place.join(name).key().to_owned(), bytes, tag: None, modified_secs: 0 }
}

/// The manifest of a cache in a bucket, with its text.
pub(crate) fn read_manifest(dir: &Path, place: &Place, bucket: &Bucket) -> Result<(Manifest, Vec<u8>), CacheError> {
    let path = dir.join(MANIFEST_FILE);
    let Some(text) = bucket.read(place.join(MANIFEST_FILE).key())? else {
        return Err(no_manifest(dir, place, bucket)?);
    };
    Ok((Manifest::parse(&path, &text)?, text.to_vec()))
}

/// Why there is no manifest.
fn no_manifest(dir: &Path, place: &Place, bucket: &Bucket) -> Result<CacheError, StoreError> {
    let job = bucket.head(place.join(&Name::Job.to_text()).key())?;
    let path = dir.to_owned();
    Ok(match job {
        None => CacheError::NotACache { path },
        Some(_) => {
            let advice = "run the command that writes it again to finish it".to_owned();
            CacheError::Unfinished { path, done: 0, expected: 1, advice }
        }
    })
}

/// Size of a file of the cache at `dir`; 0 where there is none.
pub(crate) fn file_bytes(dir: &Path, name: &str) -> u64 {
    let remote = || {
        let place = Place::parse(dir).ok()??.join(name);
        Bucket::of(&place).ok()?.head(place.key()).ok()?
    };
    match std::fs::metadata(dir.join(name)) {
        Ok(file) => file.len(),
        Err(_) => remote().map_or(0, |object| object.bytes),
    }
}
