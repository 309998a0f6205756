//! Removal of the program's own files from a run's folder: by exact names, never a folder with everything in it.

use super::events::event_files;
use super::links::{BEST, LATEST, clear_folder};
use super::lock::LOCK;
use crate::TrainError;
use std::fs;
use std::path::{Path, PathBuf};
use tokengrid_cache::{is_system_name, is_temporary_name};
use tokengrid_model::checkpoints::step_of;

/// Files that are being written, under the names that this version and earlier ones give them.
const TEMPORARY: [&str; 4] = ["config.toml.tmp", "metrics.jsonl.tmp", "config.tmp", "metrics.tmp"];

/// Removes everything that a run has written into `folder` but the folder itself.
pub(super) fn remove_run(folder: &Path) -> Result<(), TrainError> {
    let own_events = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tokengrid");
    event_files(folder)?.iter().filter(|path| own_events(path)).try_for_each(|path| remove_file(path))?;
    let checkpoints = folder.join("checkpoints");
    remove_unfinished(folder)?;
    // Before the checkpoints: a folder in a link's place is compared with them.
    let links = [LATEST, BEST].map(|link| checkpoints.join(link));
    links.iter().try_for_each(|link| clear_folder(link))?;
    for path in entries(&checkpoints)?.iter().filter(|path| step_of(path).is_some()) {
        remove_checkpoint(path)?;
    }
    let is_link = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    links.iter().filter(is_link).try_for_each(|link| remove_file(link))?;
    let samples = folder.join("samples");
    let is_picture = |path: &&PathBuf| is_named(path, "step-", ".png");
    entries(&samples)?.iter().filter(is_picture).try_for_each(|path| remove_file(path))?;
    for empty in [checkpoints, samples] {
        // Fails, as it should, where files of others are left in it.
        let _ = fs::remove_dir(empty);
    }
    // The record of the run goes last: until then the same command continues the removal.
    ["metrics.jsonl", "config.toml"].iter().try_for_each(|name| remove_file(&folder.join(name)))
}

/// Removes what a run that was killed while writing has left.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), TrainError> {
    TEMPORARY.iter().try_for_each(|name| remove_file(&folder.join(name)))?;
    let is_temporary = |path: &&PathBuf| is_named(path, "step-", ".png.tmp") || is_named(path, "step-", ".tmp");
    entries(&folder.join("samples"))?.iter().filter(is_temporary).try_for_each(|path| remove_file(path))?;
    for path in entries(&folder.join("checkpoints"))? {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(".latest.tmp" | ".best.tmp") => remove_file(&path)?,
            Some(name) if unfinished_step(name) => remove_checkpoint(&path)?,
            // The rest of one whose removal was cut short.
            Some(_) if step_of(&path).is_some() && !path.join("state.json").exists() => remove_checkpoint(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether `publish` gives its temporary folders such a name.
fn unfinished_step(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .is_some_and(|name| step_of(Path::new(name)).is_some())
}

/// Removes a checkpoint's files, and its folder if nothing else lies in it.
pub(super) fn remove_checkpoint(path: &Path) -> Result<(), TrainError> {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let (mut own, mut foreign) = (0, 0);
    // `state.json` makes it a checkpoint: a removal that is cut short leaves none.
    remove_file(&path.join("state.json"))?;
    for file in entries(path)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_own = name == "config.toml" || name.ends_with(".safetensors") || name.ends_with(".tmp");
        match is_own && file.is_file() {
            true => {
                remove_file(&file)?;
                own += 1;
            }
            false => foreign += 1,
        }
    }
    if foreign > 0 {
        if own > 0 {
            tracing::warn!("{} stays: {foreign} files in it are not of this program", path.display());
        }
        return Ok(());
    }
    fs::remove_dir(path).map_err(TrainError::io("remove", path))
}

/// Makes room at `path`: a checkpoint there is removed, and a folder that stays for others' files in it takes another name.
pub(super) fn make_room(path: &Path) -> Result<(), TrainError> {
    remove_checkpoint(path)?;
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let aside = move_aside(path)?;
    tracing::warn!("{} is now {}: files in it are not of this program", path.display(), aside.display());
    Ok(())
}

/// Renames the file or folder at `path` to a free name.
pub(super) fn move_aside(path: &Path) -> Result<PathBuf, TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = |n: u32| path.with_file_name(format!("{name}.others-{n}"));
    let aside = (1..).map(named).find(|aside| !aside.exists()).unwrap_or_else(|| named(0));
    fs::rename(path, &aside).map_err(TrainError::io("rename", path))?;
    Ok(aside)
}

/// The first entry of a folder without a run that is neither this program's start of one nor the system's.
pub(super) fn foreign_entry(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    let foreign = |path: &PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some("checkpoints") => !path.is_dir() || entries(path).is_ok_and(|inside| !inside.is_empty()),
        Some(name) => !(name == LOCK || TEMPORARY.contains(&name) || is_temporary_name(name) || is_system_name(name)),
        None => true,
    };
    Ok(entries(folder)?.into_iter().find(foreign))
}

/// The paths in a folder by name; none where there is no folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.map_err(TrainError::io("read", folder))?,
    };
    let mut paths: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn is_named(path: &Path, start: &str, end: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix(start)?.strip_suffix(end));
    digits.is_some_and(|digits| digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes a file that may be gone already.
pub(super) fn remove_file(path: &Path) -> Result<(), TrainError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
