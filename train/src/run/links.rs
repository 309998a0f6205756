//! The links `latest` and `best` beside a run's checkpoints.

use super::cleanup::{entries, make_room, move_aside, remove_file};
use crate::TrainError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use tokengrid_model::checkpoints::Search;

/// Link to the newest checkpoint.
pub(super) const LATEST: &str = "latest";

/// Link to the checkpoint with the best value of the metric that `train.save_best` names.
pub(super) const BEST: &str = "best";

/// The name of a checkpoint's folder.
pub(super) fn checkpoint_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Points `latest` at the newest checkpoint whose files `needed` are whole, with a warning for damaged later ones, and `best` at
/// the one that the newest names. A run may have been killed between a checkpoint and its links.
pub(super) fn repair(folder: &Path, needed: &[&str]) -> Result<(), TrainError> {
    let search = Search::newest(folder, needed).map_err(TrainError::io("read", folder))?;
    search.tell();
    let Some(newest) = &search.found else { return Ok(()) };
    point_unless(folder, LATEST, &newest.file_name().unwrap_or_default().to_string_lossy())?;
    let best = state_of(newest)["best"]["step"].as_u64().map(checkpoint_name);
    match best.filter(|best| folder.join(best).is_dir()) {
        Some(best) => point_unless(folder, BEST, &best),
        None => Ok(()),
    }
}

/// Points a link at a checkpoint, unless it points there already.
fn point_unless(folder: &Path, link: &str, name: &str) -> Result<(), TrainError> {
    if fs::read_link(folder.join(link)).is_ok_and(|found| found == Path::new(name)) {
        return Ok(());
    }
    point(folder, link, name)
}

/// Points a link at a checkpoint, replacing an existing link.
pub(super) fn point(folder: &Path, link: &str, name: &str) -> Result<(), TrainError> {
    let (link, temporary) = (folder.join(link), folder.join(format!(".{link}.tmp")));
    clear_folder(&link)?;
    remove_file(&temporary)?;
    std::os::unix::fs::symlink(name, &temporary).map_err(TrainError::io("create", &temporary))?;
    fs::rename(&temporary, &link).map_err(TrainError::io("publish", &link))
}

/// A run that was copied with links followed has a folder there. A second copy of a checkpoint goes; anything else stays under
/// another name.
pub(super) fn clear_folder(link: &Path) -> Result<(), TrainError> {
    if !fs::symlink_metadata(link).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    if is_second_copy(link) {
        return make_room(link);
    }
    let aside = move_aside(link)?;
    tracing::warn!("{} was a folder, and no copy of a checkpoint: it is now {}", link.display(), aside.display());
    Ok(())
}

/// Whether all files in the folder are those of the checkpoint beside it that has its step.
fn is_second_copy(folder: &Path) -> bool {
    let Some(step) = state_of(folder)["step"].as_u64() else { return false };
    let first = folder.with_file_name(checkpoint_name(step));
    let has_it =
        |file: &Path| file.file_name().is_some_and(|name| same_bytes(file, &first.join(name)).unwrap_or(false));
    entries(folder).is_ok_and(|files| files.iter().all(|file| has_it(file)))
}

/// What a checkpoint's `state.json` says, or `null`.
fn state_of(checkpoint: &Path) -> serde_json::Value {
    let text = fs::read(checkpoint.join("state.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    const PART: u64 = 1 << 20;
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut part_a, mut part_b) = (vec![], vec![]);
    loop {
        part_a.clear();
        part_b.clear();
        a.by_ref().take(PART).read_to_end(&mut part_a)?;
        b.by_ref().take(PART).read_to_end(&mut part_b)?;
        if part_a != part_b || part_a.is_empty() {
            return Ok(part_a == part_b);
        }
    }
}
