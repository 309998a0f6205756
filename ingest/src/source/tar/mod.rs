//! Tars: a tar of class tars as ImageNet's training set comes, a tar of images with or without class folders, and
//! WebDataset shards.
//!
//! Headers are read once (module `scan`); what one tar holds is noted by `reading`, what all of them hold by `index`. Images are
//! then read by position, from any number of threads. Nothing is unpacked: an image inside a tar inside a tar has a position in
//! the outer file. Several tars, or the class tars of one, are read in parallel.

mod header;
mod index;
mod pax;
mod reading;
mod runs;
mod samples;
mod scan;
mod sidecars;

use super::Contents;
use super::cancel::Cancel;
use super::files::{SourceFile, max_open_files};
use super::imagenet::is_wnid;
use super::keys::file_key;
use super::options::Columns;
use super::parallel::{THREADS, in_parallel};
use super::table::Place;
use super::text::count;
use crate::error::IngestError;
use index::Index;
use std::io;
use std::path::Path;

/// Indexes the tars at `paths`, which together are the source at `root`.
pub(super) fn open(
    root: &Path,
    paths: Vec<SourceFile>,
    columns: Columns<'_>,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let by_class = are_class_tars(root, &paths)?;
    // Many tars at once, or many class tars of the only one.
    let threads = if paths.len() == 1 { THREADS } else { 1 };
    let files: Vec<(u32, &SourceFile)> = (0..).zip(&paths).collect();
    let indices = in_parallel(&files, THREADS.min(max_open_files()), |(number, path)| {
        let class = class_of_tar(path).filter(|_| by_class);
        Index::read(path, *number, class, threads, columns, cancel)
    });
    cancel.check()?;
    let mut all = Index { by_class, ..Index::default() };
    for ((number, path), index) in files.into_iter().zip(indices) {
        match index {
            Ok(index) => all.append(index),
            Err(Problem::Samples(problem)) => return Err(IngestError::Samples { path: path.to_path_buf(), problem }),
            Err(Problem::Io(source)) if paths.len() == 1 => {
                return Err(IngestError::Unreadable { path: path.to_path_buf(), source });
            }
            Err(Problem::Io(source)) => {
                let place = Place { file: number, ..Place::default() };
                all.table.push_broken(&file_key(path), place, format!("cannot be read: {source}"));
            }
        }
    }
    let refuse = |problem| IngestError::Samples { path: root.to_owned(), problem };
    all.sidecars.check_wanted(columns).map_err(refuse)?;
    all.finish(root, paths)
}

/// Whether tars are named after classes: all of them, or none. A single tar with another name among class tars would leave all of
/// them without labels, so it is refused.
fn are_class_tars(root: &Path, paths: &[SourceFile]) -> Result<bool, IngestError> {
    let (classes, others): (Vec<_>, Vec<_>) = paths.iter().partition(|path| class_of_tar(path).is_some());
    if let (Some(class), Some(other)) = (classes.first(), others.first()) {
        let number = count(others.len(), "tar");
        let problem = format!(
            "'{}' is named after a class, but '{}' is not ({number} in all): move what is no class elsewhere, or name it after \
             its class",
            file_key(class),
            file_key(other)
        );
        return Err(IngestError::Samples { path: root.to_owned(), problem });
    }
    Ok(!classes.is_empty())
}

/// Why nothing of a tar can be read.
enum Problem {
    Io(io::Error),
    /// Samples that are ambiguous, or labels that are not classes.
    Samples(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

/// The class that a tar is named after: `n01440764.tar`.
fn class_of_tar(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    is_wnid(stem).then(|| stem.to_owned())
}
