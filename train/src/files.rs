//! Files that a configuration names.

use crate::TrainError;
use std::path::Path;
use tokengrid_cache::CacheError;
use tokengrid_store::LocalFile;

/// A file by its path, or that at a URL in the stage folder, where it stays while this lives.
pub(crate) fn local_file(path: &str) -> Result<LocalFile, TrainError> {
    Ok(LocalFile::of(Path::new(path)).map_err(CacheError::from)?)
}
