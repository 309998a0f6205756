//! The link `latest` beside a run's checkpoints.

use super::cleanup::{entries, make_room, move_aside, remove_file};
use crate::TrainError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use tokengrid_model::checkpoints::Search;

/// Points `latest` at the newest checkpoint whose files `needed` are whole, and says which ones are not.
pub(super) fn repair_latest(folder: &Path, needed: &[&str]) -> Result<(), TrainError> {
    let search = Search::newest(folder, needed).map_err(TrainError::io("read", folder))?;
    search.tell();
    let Some(name) = search.found.as_ref().and_then(|path| path.file_name()) else { return Ok(()) };
    if fs::read_link(folder.join("latest")).is_ok_and(|link| link == Path::new(name)) {
        return Ok(());
    }
    point_latest_at(folder, &name.to_string_lossy())
}

pub(super) fn point_latest_at(folder: &Path, name: &str) -> Result<(), TrainError> {
    let (link, temporary) = (folder.join("latest"), folder.join(".latest.tmp"));
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
    let text = fs::read(folder.join("state.json")).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let Some(step) = state.get("step").and_then(serde_json::Value::as_u64) else { return false };
    let first = folder.with_file_name(format!("step-{step:08}"));
    let has_it =
        |file: &Path| file.file_name().is_some_and(|name| same_bytes(file, &first.join(name)).unwrap_or(false));
    entries(folder).is_ok_and(|files| files.iter().all(|file| has_it(file)))
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
