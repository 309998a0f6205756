//! A cache that is no longer wanted.

use crate::error::{CacheError, io_error};
use crate::files::small::{list_names, remove_if_present, sync_dir};
use crate::format::manifest::Manifest;
use crate::format::names::{MANIFEST_FILE, QUARANTINE_FILE, is_leftover};
use crate::inspect::store::{INSPECTION_FILE, is_temporary_inspection};
use crate::lookup::key_index::KEY_INDEX_FILE;
use crate::survey::SURVEY_FILE;
use std::fs;
use std::path::{Path, PathBuf};

/// Removes the finished cache in `dir`: the files that its manifest lists, and what this crate keeps beside them. Whatever
/// else lies there moves to the folder `rest`, where nothing is replaced.
///
/// The manifest goes last. Killed in between, the same call goes on; a folder that was already emptied is removed.
///
/// # Errors
/// [`CacheError::NotACache`] and others of [`Manifest::read`], before anything is removed; [`CacheError::Io`].
pub fn remove_cache(dir: &Path, rest: &Path) -> Result<(), CacheError> {
    let names = list_names(dir)?;
    if !names.is_empty() {
        let manifest = Manifest::read(dir)?;
        let is_listed = |name: &str| name == QUARANTINE_FILE || manifest.shards.iter().any(|shard| shard.file == name);
        let is_kept = |name: &str| [INSPECTION_FILE, SURVEY_FILE, KEY_INDEX_FILE].contains(&name);
        let is_derived = |name: &str| is_kept(name) || is_temporary_inspection(name) || is_leftover(name);
        let (ours, foreign): (Vec<_>, Vec<_>) = names
            .iter()
            .filter(|name| *name != MANIFEST_FILE)
            .partition(|name| (is_listed(name) || is_derived(name)) && !dir.join(name).is_dir());
        for name in foreign {
            let target = free_name(rest, name);
            fs::rename(dir.join(name), &target)
                .map_err(io_error("move what does not belong to the cache to", &target))?;
        }
        sync_dir(rest)?;
        ours.into_iter().try_for_each(|name| remove_if_present(&dir.join(name)))?;
        remove_if_present(&dir.join(MANIFEST_FILE))?;
    }
    fs::remove_dir(dir).map_err(io_error("remove", dir))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// `name` in `folder`, or, where there is such a file, with a number after it.
fn free_name(folder: &Path, name: &str) -> PathBuf {
    let numbered = (1..).map(|number| folder.join(format!("{name}.{number}")));
    let mut names = std::iter::once(folder.join(name)).chain(numbered);
    // A link that leads nowhere is there, too.
    names.find(|path| path.symlink_metadata().is_err()).expect("numbers do not end")
}
