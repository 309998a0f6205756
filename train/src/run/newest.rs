//! Which checkpoint of a run counts: the newest that is whole, whatever a link says. Knows names and files only.

use std::io;
use std::path::{Path, PathBuf};
use tokengrid_tokenize::Weights;

/// The folder of the newest whole checkpoint of a run, or of a run's `checkpoints`. The link `latest` does not count: a run
/// that was killed between a checkpoint and its link left an older one there.
pub fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let folders = [folder.join("checkpoints"), folder.to_path_buf()];
    folders.iter().find_map(|folder| newest_in(folder).ok().flatten())
}

/// The newest whole one in `folder`. Others were damaged after they were published: a later one that is passed over is told.
pub(super) fn newest_in(folder: &Path) -> io::Result<Option<PathBuf>> {
    for path in published(folder)?.into_iter().rev() {
        match check(&path) {
            Ok(()) => return Ok(Some(path)),
            Err(what) => tracing::warn!("{} is damaged ({what}); the one before it is taken", path.display()),
        }
    }
    Ok(None)
}

/// Published checkpoints, oldest first.
pub(super) fn published(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    // A folder without a state is what is left of one that was removed, with somebody else's files in it.
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| step_of(path).is_some() && path.join("state.json").is_file()).collect();
    paths.sort_by_key(|path| step_of(path));
    Ok(paths)
}

/// The step in a checkpoint's name.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
    if digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// What makes a folder a checkpoint: a state of the step in its name, and a model whose file is whole.
fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path.join("state.json")).map_err(|e| format!("state.json: {e}"))?;
    let state: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("state.json: {e}"))?;
    let step = state.get("step").and_then(serde_json::Value::as_u64);
    if step != step_of(path) {
        return Err(format!("the step in its state.json is {step:?}"));
    }
    Weights::open(&path.join("model.safetensors")).map_err(|e| e.to_string())?;
    Ok(())
}
