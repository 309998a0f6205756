//! The inspection beside the cache: computed once, read from then on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::{INSPECTION_VERSION, Inspection};
use crate::error::CacheError;
use crate::fsio::write_atomically;
use crate::reader::TokenCache;

/// Name of the file in the cache's folder.
pub const INSPECTION_FILE: &str = "inspect.json";

/// Where an inspection was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredAt {
    /// In this file.
    File(PathBuf),
    /// Nowhere: neither the cache's folder nor the user's cache folder can be written to.
    Memory,
}

impl Inspection {
    /// The inspection that was kept for exactly this cache, if there is one: in the cache's folder, or in `fallback`, which is
    /// where they are kept for caches in folders that cannot be written to.
    ///
    /// A file that is damaged, of an older version or of another manifest counts as none.
    pub fn load(cache: &TokenCache, fallback: Option<&Path>) -> Option<Inspection> {
        let read = |path: PathBuf| {
            let inspection: Inspection = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            inspection.fits(cache).then_some(inspection)
        };
        paths(cache, fallback).into_iter().find_map(read)
    }

    /// The kept inspection, or else a new one, which is then kept; and where. Arguments as for [`Inspection::of`].
    ///
    /// # Errors
    /// As [`Inspection::of`]. That it cannot be kept is no error.
    pub fn load_or_compute(
        cache: &TokenCache,
        fallback: Option<&Path>,
        threads: Option<usize>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Inspection, CacheError> {
        if let Some(inspection) = Self::load(cache, fallback) {
            return Ok(inspection);
        }
        let inspection = Self::of(cache, threads, cancel, progress)?;
        inspection.store(cache, fallback);
        Ok(inspection)
    }

    /// Keeps the inspection in the cache's folder, else in `fallback`.
    pub fn store(&self, cache: &TokenCache, fallback: Option<&Path>) -> StoredAt {
        // Numbers, texts and lists always have a JSON form.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let write = |path: &PathBuf| {
            let folder = path.parent()?;
            fs::create_dir_all(folder).ok()?;
            // Two programs may be at it at once.
            let temporary = folder.join(format!(".{INSPECTION_FILE}.{}.tmp", std::process::id()));
            write_atomically(temporary, path, &text).ok()
        };
        let written = paths(cache, fallback).into_iter().find(|path| write(path).is_some());
        written.map_or(StoredAt::Memory, StoredAt::File)
    }

    /// Whether it is of this cache, and whole: others may have written to the file.
    fn fits(&self, cache: &TokenCache) -> bool {
        let (rows, codes) = (cache.num_rows(), 1usize << cache.grid().bits);
        let places = (rows * cache.grid().num_tokens()) as u64;
        let near = &self.stats.near_duplicates.listed;
        self.version == INSPECTION_VERSION
            && self.manifest == cache.manifest().checksum
            && (self.code_counts.len(), self.code_first.len()) == (codes, codes)
            && self.code_first.iter().flatten().all(|place| *place < places)
            && self.duplicates.iter().all(|pair| pair.first < rows && pair.row < rows)
            && near.iter().all(|pair| pair.first < rows && pair.row < rows)
            && self.stats.label_conflicts.listed.iter().all(|conflict| conflict.row < rows)
    }
}

/// Where an inspection may lie, the best place first.
fn paths(cache: &TokenCache, fallback: Option<&Path>) -> Vec<PathBuf> {
    let beside = cache.dir().join(INSPECTION_FILE);
    let elsewhere = fallback.map(|folder| folder.join(format!("{}.json", cache.manifest().checksum)));
    std::iter::once(beside).chain(elsewhere).collect()
}
