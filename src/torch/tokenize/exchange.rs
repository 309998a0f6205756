//! Exchanges two caches so that a cache exists under the name at every moment.

use crate::files::write_json;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tokengrid_cache::{Manifest, remove_cache};

/// The paths of a cache and of the files beside it during `--add`.
pub(super) struct Folders {
    /// The cache.
    pub cache: PathBuf,
    /// The added part.
    pub adding: PathBuf,
    /// The merged cache.
    pub merged: PathBuf,
    before: PathBuf,
    record: PathBuf,
    names: Box<dyn Names>,
}

/// Renaming of folders; replaced in tests.
trait Names {
    /// Exchanges two names atomically; false if the system or the file system cannot.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<bool>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// Renaming by the operating system.
struct System;

impl Names for System {
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<bool> {
        exchange_names(a, b)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

/// The record of an exchange: the caches by the checksums of their manifests.
#[derive(Serialize, Deserialize)]
struct Record {
    old: String,
    new: String,
    added: String,
    /// Whether the old cache is moved to `.before`, since the file system cannot exchange folders.
    by_renames: bool,
}

impl Folders {
    /// The paths that belong to a cache.
    pub(super) fn of(cache: &Path) -> anyhow::Result<Folders> {
        // Links and dots are resolved: the folder itself is exchanged.
        let cache = fs::canonicalize(cache).or_else(|_| std::path::absolute(cache))?;
        let beside = |ending: &str| {
            let mut path = cache.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let (adding, merged, before) = (beside(".adding"), beside(".merged"), beside(".before"));
        let record = beside(".adding.json");
        Ok(Folders { cache, adding, merged, before, record, names: Box::new(System) })
    }

    /// Puts the merged cache in the old one's place and removes the old one and the added part.
    pub(super) fn exchange(&self) -> anyhow::Result<()> {
        let checksum = |folder: &Path| Manifest::read(folder).map(|manifest| manifest.checksum);
        let record = Record {
            old: checksum(&self.cache)?,
            new: checksum(&self.merged)?,
            added: checksum(&self.adding)?,
            by_renames: false,
        };
        write_json(&self.record, &record)?;
        sync_folder_of(&self.record)?;
        self.finish_exchange()
    }

    /// Continues an unfinished exchange, if there is one.
    pub(super) fn finish_exchange(&self) -> anyhow::Result<()> {
        let lock = match File::open(&self.record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot open {}", self.record.display()))?,
        };
        // One of the processes that share the job does it.
        lock.lock().with_context(|| format!("cannot lock {}", self.record.display()))?;
        let Some(mut record) = self.read_record()? else { return Ok(()) };
        if checksum(&self.cache).as_ref() != Some(&record.new) {
            if checksum(&self.merged).as_ref() != Some(&record.new) {
                return self.forget(&record);
            }
            self.change_places(&mut record)?;
        }
        self.clear(&record)
    }

    fn read_record(&self) -> anyhow::Result<Option<Record>> {
        let text = match fs::read(&self.record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot read {}", self.record.display()))?,
        };
        let foreign = || format!("{} is not a record of `tokenize --add`: move it away", self.record.display());
        serde_json::from_slice(&text).map(Some).with_context(foreign)
    }

    /// Handles a record whose new cache is missing: the old one stays, if it exists.
    fn forget(&self, record: &Record) -> anyhow::Result<()> {
        if checksum(&self.cache).as_ref() != Some(&record.old) {
            let (record, merged, cache) = (self.record.display(), self.merged.display(), self.cache.display());
            bail!(
                "{record} speaks of a cache that is neither {merged} nor {cache}: put it there, or remove the record"
            );
        }
        self.remove_record()
    }

    fn change_places(&self, record: &mut Record) -> anyhow::Result<()> {
        let cannot = |from: &Path, to: &Path| format!("cannot move {} to {}", from.display(), to.display());
        if self.cache.exists() && !record.by_renames {
            match self.names.exchange(&self.merged, &self.cache) {
                Ok(true) => return sync_folder_of(&self.cache),
                Ok(false) => {}
                Err(error) => return Err(error).with_context(|| cannot(&self.merged, &self.cache)),
            }
        }
        if self.cache.exists() {
            if self.before.symlink_metadata().is_ok() {
                bail!("{} is in the way of the old cache: move it elsewhere and run again", self.before.display());
            }
            record.by_renames = true;
            write_json(&self.record, &*record)?;
            sync_folder_of(&self.record)?;
            self.names.rename(&self.cache, &self.before).with_context(|| cannot(&self.cache, &self.before))?;
        }
        self.names.rename(&self.merged, &self.cache).with_context(|| cannot(&self.merged, &self.cache))?;
        sync_folder_of(&self.cache)
    }

    /// Removes the old cache and the added part. Foreign files in their folders move to the new cache.
    fn clear(&self, record: &Record) -> anyhow::Result<()> {
        let old = if record.by_renames { &self.before } else { &self.merged };
        for (folder, expected) in [(old, &record.old), (&self.adding, &record.added)] {
            let is_emptied = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            if checksum(folder).as_ref() == Some(expected) || is_emptied() {
                remove_cache(folder, &self.cache)?;
            }
        }
        self.remove_record()
    }

    fn remove_record(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.record).with_context(|| format!("cannot remove {}", self.record.display()))?;
        sync_folder_of(&self.record)
    }
}

/// Checksum of the manifest in a folder, if it has a complete one.
fn checksum(folder: &Path) -> Option<String> {
    Manifest::read(folder).ok().map(|manifest| manifest.checksum)
}

/// Makes renames in the parent folder of `path` durable.
fn sync_folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let sync = || File::open(folder)?.sync_all();
    sync().with_context(|| format!("cannot sync {}", folder.display()))
}

/// Exchanges two names atomically; false if the system or the file system cannot.
#[cfg(target_os = "linux")]
fn exchange_names(a: &Path, b: &Path) -> io::Result<bool> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (a, b) = (name(a)?, name(b)?);
    let here = libc::AT_FDCWD;
    // By system call number: only glibc has a function for it.
    // SAFETY: both names are NUL-terminated and live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange_names(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
