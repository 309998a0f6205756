//! What a folder is, and whose.

use crate::error::{CacheError, io_error};
use crate::files::atomic::is_temporary_name;
use crate::files::lock::Lock;
use crate::files::small::{list_names, read_at_most, remove_if_present, sync_dir};
use crate::files::system_names::is_system_name;
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::job_file::{JobFile, MANIFEST_BYTES_MAX, read_job, write_job};
use crate::format::manifest::Manifest;
use crate::format::names::{Name, list_ours, parse_name};
use crate::format::schema::FORMAT;
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Locks that a writer holds: no other process writes for its rank.
pub(super) struct Claim {
    pub(super) rank_lock: Option<Lock>,
    /// The manifest, when the cache is finished.
    pub(super) manifest: Option<Manifest>,
    pub(super) began: Began,
}

/// What a writer found missing and made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Began {
    folder: bool,
    job: bool,
}

/// Makes `dir` the folder of `job`: creates it, refuses what is not ours and what is another job's, claims the rank.
pub(super) fn claim(dir: &Path, job: &JobSpec, overwrite: bool) -> Result<Claim, CacheError> {
    let mut began = Began { folder: create_folder(dir)?, job: false };
    // Before the lock's file is created in what may not be our folder; once more if it just became ours.
    refuse_foreign(dir).or_else(|_| refuse_foreign(dir))?;
    if !overwrite && let Some(manifest) = finished(dir, &job.identity())? {
        finish_cleaning(dir);
        return Ok(Claim { rank_lock: None, manifest: Some(manifest), began });
    }
    let _folder = Lock::wait(&Name::FolderLock.path(dir))?;
    refuse_foreign(dir)?;
    if overwrite {
        clear(dir, job)?;
    } else if let Some(manifest) = finished(dir, &job.identity())? {
        remove_leftovers(dir);
        return Ok(Claim { rank_lock: None, manifest: Some(manifest), began });
    }
    match read_job(dir)? {
        // An overwriting process died while it removed what had been there: what it began is done first.
        Some(found) if found.world_size == CLEARING => {
            same_job(dir, &found.job, &job.identity(), None)?;
            clear(dir, job)?;
            write_job(dir, job)?;
            began.job = true;
        }
        Some(found) => same_job(dir, &found.job, &job.identity(), Some((found.world_size, job.world_size)))?,
        None => {
            write_job(dir, job)?;
            began.job = true;
        }
    }
    let rank_lock = Lock::take(&Name::RankLock(job.rank).path(dir))?;
    Ok(Claim { rank_lock: Some(rank_lock), manifest: None, began })
}

/// Removes what a job without durable rows has made. Failing to is harmless: the folder is then one of an unfinished job.
pub(super) fn withdraw(dir: &Path, began: Began, rank_lock: Option<Lock>) {
    let Ok(folder_lock) = Lock::wait(&Name::FolderLock.path(dir)) else { return };
    let has_rows = |name: &Name| matches!(name, Name::Shard(..) | Name::Part(..) | Name::Done(_) | Name::Manifest);
    let ours = list_ours(dir).unwrap_or_default();
    if began.job && !ours.iter().any(has_rows) {
        // The job file last except for the locks: without it, no other file may exist.
        ours.iter()
            .filter(|name| matches!(name, Name::Temp(_)))
            .for_each(|name| _ = remove_if_present(&name.path(dir)));
        ours.iter().filter(|name| matches!(name, Name::Job)).for_each(|name| _ = remove_if_present(&name.path(dir)));
        ours.iter().filter(is_lock).for_each(|name| _ = remove_if_present(&name.path(dir)));
        if began.folder {
            // Only an empty folder can be removed this way.
            let _ = fs::remove_dir(dir);
        }
    }
    drop((folder_lock, rank_lock));
}

fn is_lock(name: &&Name) -> bool {
    matches!(name, Name::FolderLock | Name::RankLock(_))
}

/// Creates the folder durably: after a power loss its files must not be in a folder that was never there. Whether it was
/// not there before.
fn create_folder(dir: &Path) -> Result<bool, CacheError> {
    if dir.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(dir).map_err(io_error("create folder", dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
        _ => sync_dir(Path::new("."))?,
    }
    Ok(true)
}

/// The manifest of a finished cache of this job; an error when it is of another one.
fn finished(dir: &Path, identity: &JobIdentity) -> Result<Option<Manifest>, CacheError> {
    if !Name::Manifest.path(dir).exists() {
        return Ok(None);
    }
    let manifest = Manifest::read(dir)?;
    same_job(dir, &manifest.identity(), identity, None)?;
    Ok(Some(manifest))
}

fn same_job(
    dir: &Path,
    found: &JobIdentity,
    wanted: &JobIdentity,
    world_sizes: Option<(u32, u32)>,
) -> Result<(), CacheError> {
    let differs = |(field, found, wanted)| CacheError::JobDiffers { path: dir.into(), field, found, wanted };
    if let Some(difference) = found.first_difference(wanted) {
        return Err(differs(difference));
    }
    match world_sizes {
        Some((found, wanted)) if found != wanted => {
            Err(differs(("world_size".to_owned(), found.to_string(), wanted.to_string())))
        }
        _ => Ok(()),
    }
}

/// A folder is ours when it holds a manifest or job file that says so, or nothing at all (locks and temporary files of
/// a process that died at once do not count).
fn refuse_foreign(dir: &Path) -> Result<(), CacheError> {
    let harmless = |name: &String| {
        let is_own = matches!(parse_name(name), Some(Name::FolderLock | Name::RankLock(_) | Name::Temp(_)));
        is_own || is_temporary_name(name) || is_system_name(name)
    };
    let found = list_names(dir)?.into_iter().find(|name| !harmless(name));
    // Looked at after the listing, and the job file first: other ranks may be creating or publishing meanwhile, and
    // files of ours appear only after the job file, which is removed only after the manifest is written.
    match found {
        Some(found) if !says_format(&Name::Job.path(dir)) && !says_format(&Name::Manifest.path(dir)) => {
            Err(CacheError::FolderNotEmpty { path: dir.into(), found })
        }
        _ => Ok(()),
    }
}

fn says_format(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Loose {
        format: String,
    }
    let text = read_at_most(path, MANIFEST_BYTES_MAX).ok();
    let loose: Option<Loose> = text.and_then(|text| serde_json::from_slice(&text).ok());
    loose.is_some_and(|loose| loose.format == FORMAT)
}

/// What the cache or the unfinished job in a folder is made of, if there is one that can be read.
pub(crate) fn identity_there(dir: &Path) -> Option<JobIdentity> {
    let finished = Manifest::read(dir).ok().map(|manifest| manifest.identity());
    finished.or_else(|| Some(read_job(dir).ok()??.job))
}

/// Removes what `overwrite` replaces. A job of several ranks is overwritten by each of them: the first one finds
/// another job (or a finished one) and removes all of it, the others find their own job begun and remove only their
/// part of it, so that none removes what another has just written.
fn clear(dir: &Path, job: &JobSpec) -> Result<(), CacheError> {
    let ours = list_ours(dir)?;
    let is_same =
        |found: JobFile| same_job(dir, &found.job, &job.identity(), Some((found.world_size, job.world_size))).is_ok();
    let begun = !ours.contains(&Name::Manifest) && read_job(dir).is_ok_and(|found| found.is_some_and(is_same));
    let mut idle = Vec::new();
    for name in &ours {
        match name {
            Name::RankLock(rank) if !begun || *rank == job.rank => idle.push(Lock::take(&name.path(dir))?),
            _ => {}
        }
    }
    let remove_all = |doomed: &dyn Fn(Name) -> bool| {
        ours.iter().filter(|name| doomed(**name)).try_for_each(|name| remove_if_present(&name.path(dir)))
    };
    if begun {
        return remove_all(&|name| name.is_work_of(job.rank));
    }
    if ours.is_empty() {
        return Ok(());
    }
    // Killed half way, this must leave neither a manifest without its shards nor a job that seems to be begun: until
    // all is removed, the folder is that of a job which no process can have.
    write_job(dir, &JobSpec { world_size: CLEARING, ..job.clone() })?;
    remove_if_present(&Name::Manifest.path(dir))?;
    remove_all(&|name| !matches!(name, Name::Job | Name::FolderLock | Name::RankLock(_)))?;
    remove_if_present(&Name::Job.path(dir))
}

/// The world size of a job that is being removed.
const CLEARING: u32 = 0;

/// Removes what a publisher that died right after publishing left behind. The cache may be on a read-only disk: then
/// they stay.
fn finish_cleaning(dir: &Path) {
    let is_leftover = |name: &Name| !matches!(name, Name::Manifest | Name::Quarantine | Name::Shard(..));
    if list_ours(dir).is_ok_and(|ours| ours.iter().any(is_leftover))
        && let Ok(_folder) = Lock::wait(&Name::FolderLock.path(dir))
    {
        remove_leftovers(dir);
    }
}

/// Removes what a finished job no longer needs. Failing to is harmless: readers ignore these files.
pub(crate) fn remove_leftovers(dir: &Path) {
    for name in list_ours(dir).unwrap_or_default() {
        let needed = matches!(name, Name::Manifest | Name::Quarantine | Name::Shard(..));
        // A lock that a live process holds is left to it.
        let held = matches!(name, Name::RankLock(_)) && Lock::take(&name.path(dir)).is_err();
        if !needed && !held {
            let _ = remove_if_present(&name.path(dir));
        }
    }
}
