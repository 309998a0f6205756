//! The newest intact checkpoint of a run, independent of its links. Uses only names and files.

use crate::Weights;
use std::io;
use std::path::{Path, PathBuf};

/// The file that holds a checkpoint's weights.
pub const MODEL: &str = "model.safetensors";

/// The file that holds their moving averages, in a checkpoint of a run that keeps them.
pub const EMA: &str = "ema.safetensors";

/// The folder of the newest checkpoint of a run, or of a run's `checkpoints`, whose weights are whole. The link `latest` does
/// not count: a run that was killed between a checkpoint and its link left an older one there.
pub fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let folders = [folder.join("checkpoints"), folder.to_path_buf()];
    folders.iter().find_map(|folder| {
        let search = Search::newest(folder, &[MODEL]).ok()?;
        search.tell();
        search.found
    })
}

/// The result of a search for the newest intact checkpoint.
#[derive(Debug)]
pub struct Search {
    /// Its folder.
    pub found: Option<PathBuf>,
    /// Later ones, which were damaged after they were published, and what is wrong with them.
    pub damaged: Vec<(PathBuf, String)>,
}

impl Search {
    /// The newest checkpoint in `folder` whose files `needed` are whole.
    ///
    /// # Errors
    /// The folder is there, but cannot be read.
    pub fn newest(folder: &Path, needed: &[&str]) -> io::Result<Search> {
        let mut damaged = vec![];
        for path in published(folder)?.into_iter().rev() {
            match check(&path, needed) {
                Ok(()) => return Ok(Search { found: Some(path), damaged }),
                Err(what) => damaged.push((path, what)),
            }
        }
        Ok(Search { found: None, damaged })
    }

    /// Warns about the damaged ones that are passed over.
    pub fn tell(&self) {
        let Some(found) = &self.found else { return };
        for (path, what) in &self.damaged {
            tracing::warn!("{} is damaged ({what}); {} before it is taken", path.display(), found.display());
        }
    }
}

/// Published checkpoints, oldest first.
///
/// # Errors
/// The folder is there, but cannot be read.
pub fn published(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    // A folder without a state is the rest of one that was removed, with another program's files in it.
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| step_of(path).is_some() && path.join("state.json").is_file()).collect();
    paths.sort_by_key(|path| step_of(path));
    Ok(paths)
}

/// The step in a checkpoint's name.
pub fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
    if digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// What makes a folder a checkpoint: a state of the step in its name, and files that are whole.
fn check(path: &Path, needed: &[&str]) -> Result<(), String> {
    let text = std::fs::read_to_string(path.join("state.json")).map_err(|e| format!("state.json: {e}"))?;
    let state: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("state.json: {e}"))?;
    let step = state.get("step").and_then(serde_json::Value::as_u64);
    if step != step_of(path) {
        return Err(format!("the step in its state.json is {step:?}"));
    }
    needed.iter().try_for_each(|name| {
        let file = path.join(name);
        if !file.is_file() {
            return Err(format!("{name} is missing"));
        }
        Weights::open(&file).map(drop).map_err(|e| e.to_string())
    })
}
