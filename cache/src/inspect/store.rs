//! The inspection beside the cache: computed once, read from then on.

use crate::error::CacheError;
use crate::files::small::{list_names, read_at_most};
use crate::files::temporary::write_atomically;
use crate::inspect::inspection::{INSPECTION_VERSION, Inspection};
use crate::inspect::kept::{places, write_to_first};
use crate::read::cache::TokenCache;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

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
            let text = read_at_most(&path, bytes_max(cache)).ok()?;
            let inspection: Inspection = serde_json::from_slice(&text).ok()?;
            inspection.fits(cache).then_some(inspection)
        };
        paths(cache, fallback).into_iter().find_map(read)
    }

    /// The kept inspection, or else a new one, which is then kept; and where. Arguments as for [`Inspection::of`].
    ///
    /// # Errors
    /// As [`Inspection::of`]. That it cannot be kept is not an error.
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
        remove_stale(cache, fallback);
        let inspection = Self::of(cache, threads, cancel, progress)?;
        inspection.store(cache, fallback);
        Ok(inspection)
    }

    /// Keeps the inspection in the cache's folder, else in `fallback`.
    pub fn store(&self, cache: &TokenCache, fallback: Option<&Path>) -> StoredAt {
        // Numbers, texts and lists always have a JSON form.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let write = |path: &Path| {
            // Two programs may be at it at once.
            let temporary = path.with_file_name(temporary_name(std::process::id()));
            write_atomically(temporary, path, &text)
        };
        write_to_first(paths(cache, fallback), &write).map_or(StoredAt::Memory, StoredAt::File)
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

/// No inspection of the cache is longer: its tables have two numbers per code, its lists are cut, classes have a line each.
fn bytes_max(cache: &TokenCache) -> u64 {
    let codes = 1u64 << cache.grid().bits;
    (64 << 20) + 48 * codes + 4096 * cache.manifest().classes.len() as u64
}

fn temporary_name(process: u32) -> String {
    format!(".{INSPECTION_FILE}.{process}.tmp")
}

/// The process that was writing an inspection under this name.
fn writing_process(name: &str) -> Option<u32> {
    let process = name.strip_prefix(".inspect.json.")?.strip_suffix(".tmp")?.parse().ok()?;
    (name == temporary_name(process)).then_some(process)
}

/// Whether a file of this name is an inspection that was being written.
pub(crate) fn is_temporary_inspection(name: &str) -> bool {
    writing_process(name).is_some()
}

/// Removes what processes left behind that died while they wrote an inspection.
fn remove_stale(cache: &TokenCache, fallback: Option<&Path>) {
    for path in paths(cache, fallback) {
        let Some(folder) = path.parent() else { continue };
        for name in list_names(folder).unwrap_or_default() {
            if writing_process(&name).is_some_and(|process| !is_alive(process)) {
                let _ = fs::remove_file(folder.join(name));
            }
        }
    }
}

/// Whether a process of this number runs on this machine.
#[cfg(unix)]
fn is_alive(process: u32) -> bool {
    let Ok(process) = i32::try_from(process) else { return false };
    // SAFETY: signal 0 is not sent; the call only says whether there is such a process.
    let found = unsafe { libc::kill(process, 0) } == 0;
    found || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

/// Where an inspection may lie, the best place first.
fn paths(cache: &TokenCache, fallback: Option<&Path>) -> Vec<PathBuf> {
    places(cache, fallback, INSPECTION_FILE, "json")
}
