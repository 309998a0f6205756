//! Where files that are computed from a cache are kept: in its folder, or elsewhere where that cannot be written to.

use crate::error::CacheError;
use crate::read::cache::TokenCache;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the file `name` of a cache may lie, the best place first. In `fallback` it is called by the manifest's checksum and `ending`.
pub(crate) fn places(cache: &TokenCache, fallback: Option<&Path>, name: &str, ending: &str) -> Vec<PathBuf> {
    let beside = cache.local_dir().join(name);
    let elsewhere = fallback.map(|folder| folder.join(format!("{}.{ending}", cache.manifest().checksum)));
    std::iter::once(beside).chain(elsewhere).collect()
}

/// Writes to the first place that can be written to, making its folder; `None` where no place can.
pub(crate) fn write_to_first(places: Vec<PathBuf>, write: &dyn Fn(&Path) -> Result<(), CacheError>) -> Option<PathBuf> {
    let is_written = |path: &PathBuf| {
        let has_folder = path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
        has_folder && write(path).is_ok()
    };
    places.into_iter().find(is_written)
}
