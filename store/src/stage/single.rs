//! One file that a path or a URL names.

use super::{StageFile, Staged, stage};
use crate::bucket::{Bucket, Object};
use crate::error::StoreError;
use crate::place::Place;
use std::path::{Path, PathBuf};

/// A file that can be opened, which stays while this lives.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    /// What the user typed.
    typed: PathBuf,
    _staged: Option<Staged>,
}

impl LocalFile {
    /// The file itself, or a staged copy of the object at a URL.
    ///
    /// # Errors
    /// A URL at which there is no object; as for [`stage()`].
    pub fn of(path: &Path) -> Result<LocalFile, StoreError> {
        let typed = path.to_owned();
        let Some(place) = Place::parse(path)? else {
            return Ok(LocalFile { path: path.to_owned(), typed, _staged: None });
        };
        let bucket = Bucket::of(&place)?;
        let object = object_at(&place, &bucket)?;
        let name = place.file_name().to_owned();
        let staged = stage(&place, &bucket, &[StageFile { object, name: name.clone(), blake3: None }])?;
        Ok(LocalFile { path: staged.folder().join(name), typed, _staged: Some(staged) })
    }

    /// Where it is on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the user typed: a path or a URL.
    pub fn typed(&self) -> &Path {
        &self.typed
    }

    /// Whether it is a copy of an object.
    pub fn is_copy(&self) -> bool {
        self._staged.is_some()
    }

    /// A message about the file with what the user typed in place of the copy's path.
    pub fn as_typed(&self, message: &str) -> String {
        message.replace(&*self.path.to_string_lossy(), &self.typed.to_string_lossy())
    }
}

/// The object of a place, which must be there.
fn object_at(place: &Place, bucket: &Bucket) -> Result<Object, StoreError> {
    if let Some(object) = bucket.head(place.key())? {
        return Ok(object);
    }
    // An answer to `HEAD` does not say what is missing: the object, or the bucket, which is the error of this request.
    bucket.read(place.key())?;
    let what = "there is no object of this name; a single file is read here, not a folder";
    Err(StoreError::Unsupported { place: place.clone(), what })
}
