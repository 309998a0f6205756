//! Files that a configuration names.

use crate::TrainError;
use std::error::Error;
use std::path::Path;
use tokengrid_cache::CacheError;
use tokengrid_store::LocalFile;

/// A file by its path, or that at a URL in the stage folder, where it stays while this lives.
pub(crate) fn local_file(path: &str) -> Result<LocalFile, TrainError> {
    Ok(LocalFile::of(Path::new(path)).map_err(CacheError::from)?)
}

/// An error in a file's contents, which names the copy of an object by the object's URL.
pub(crate) fn as_typed(file: &LocalFile) -> impl Fn(TrainError) -> TrainError {
    |error| match error {
        error if !file.is_copy() => error,
        TrainError::Config { place, what } => TrainError::Config { place, what: file.as_typed(&what) },
        TrainError::Model(error) if error.is_usage() => {
            TrainError::Config { place: file.typed().display().to_string(), what: file.as_typed(&with_causes(&error)) }
        }
        error => TrainError::File { what: file.as_typed(&with_causes(&error)) },
    }
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
