//! One file that a path or a URL names.

use super::{StageFile, Staged, stage};
use crate::bucket::Bucket;
use crate::error::StoreError;
use crate::place::Place;
use std::path::{Path, PathBuf};

/// A file that can be opened, which stays while this lives.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    _staged: Option<Staged>,
}

impl LocalFile {
    /// The file itself, or a staged copy of the object at a URL.
    ///
    /// # Errors
    /// A URL at which there is no object; as for [`stage()`].
    pub fn of(path: &Path) -> Result<LocalFile, StoreError> {
        let Some(place) = Place::parse(path)? else { return Ok(LocalFile { path: path.to_owned(), _staged: None }) };
        let bucket = Bucket::of(&place)?;
        let what = "there is no object of this name; a single file is read here, not a folder";
        let object = bucket.head(place.key())?.ok_or_else(|| StoreError::Unsupported { place: place.clone(), what })?;
        let name = place.file_name().to_owned();
        let staged = stage(&place, &bucket, &[StageFile { object, name: name.clone(), blake3: None }])?;
        Ok(LocalFile { path: staged.folder().join(name), _staged: Some(staged) })
    }

    /// Where it is on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
