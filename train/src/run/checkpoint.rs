//! Checkpoints that appear whole or not at all.

use super::SpikeWatch;
use crate::TrainError;
use crate::loss_scale::LossScale;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What a trainer needs besides tensors to go on exactly where it stopped. Random numbers are derived from the seed and
/// the step, so there is no generator to save.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Samples of the global stream consumed by all processes together.
    pub position: u64,
    /// Seed of the stream.
    pub seed: i64,
    /// Fingerprint of the tokenizer behind the tokens; empty for a tokenizer's own training.
    #[serde(default)]
    pub tokenizer: String,
    /// How loss scaling stands, in an autoregressive run in fp16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The losses that later ones are compared with.
    #[serde(default)]
    pub spikes: SpikeWatch,
}

/// Which checkpoints stay when a new one is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many; 0: all.
    pub last: usize,
    /// And those whose step is a multiple of it; 0: none.
    pub every: u64,
}

/// A published checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What `state.json` in it says.
    pub state: State,
}

impl Checkpoint {
    /// The newest one below `folder`.
    pub(super) fn latest(folder: &Path) -> Result<Option<Checkpoint>, TrainError> {
        let Some(path) = published(folder)?.pop() else { return Ok(None) };
        let file = path.join("state.json");
        let text = fs::read_to_string(&file).map_err(TrainError::io("read", &file))?;
        let state = serde_json::from_str(&text)
            .map_err(|e| TrainError::Checkpoint { path: file, what: format!("{e}; remove its folder to go on") })?;
        Ok(Some(Checkpoint { path, state }))
    }
}

/// Published checkpoints, oldest first.
fn published(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = fs::read_dir(folder).map_err(TrainError::io("read", folder))?;
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| step_of(path).is_some()).collect();
    paths.sort_by_key(|path| step_of(path));
    Ok(paths)
}

/// The step in a checkpoint's name.
fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
    if digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

pub(super) fn publish(
    folder: &Path,
    state: &State,
    config_toml: &str,
    keep: Keep,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let name = format!("step-{:08}", state.step);
    let (path, temporary) = (folder.join(&name), folder.join(format!(".{name}.tmp")));
    super::remove(&temporary)?;
    fs::create_dir(&temporary).map_err(TrainError::io("create", &temporary))?;
    let result = fill(&temporary, state, config_toml, write);
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result?;
    super::remove(&path)?;
    fs::rename(&temporary, &path).map_err(TrainError::io("publish", &path))?;
    point_latest_at(folder, &name)?;
    sync_folder(folder)?;
    remove_old(folder, keep)?;
    Ok(path)
}

/// Removes what a run left that was killed while it wrote a checkpoint.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), TrainError> {
    let entries = fs::read_dir(folder).map_err(TrainError::io("read", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| is_unfinished(path)).try_for_each(|path| super::remove(&path))
}

/// Whether `publish` gives its temporary folders such a name.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"))
        .is_some_and(|name| step_of(Path::new(name)).is_some())
}

fn remove_old(folder: &Path, keep: Keep) -> Result<(), TrainError> {
    if keep.last == 0 {
        return Ok(());
    }
    let stays = |path: &Path| keep.every > 0 && step_of(path).is_some_and(|step| step.is_multiple_of(keep.every));
    let all = published(folder)?;
    let old = all.iter().rev().skip(keep.last).filter(|path| !stays(path));
    old.into_iter().try_for_each(|path| super::remove(path))
}

fn fill(
    temporary: &Path,
    state: &State,
    config_toml: &str,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    write(temporary)?;
    write_atomically(&temporary.join("config.toml"), config_toml.as_bytes())?;
    let json = serde_json::to_vec_pretty(state).expect("numbers and strings serialize");
    write_atomically(&temporary.join("state.json"), &json)?;
    sync_folder(temporary)
}

fn point_latest_at(folder: &Path, name: &str) -> Result<(), TrainError> {
    let (link, temporary) = (folder.join("latest"), folder.join(".latest.tmp"));
    super::remove(&temporary)?;
    std::os::unix::fs::symlink(name, &temporary).map_err(TrainError::io("create", &temporary))?;
    fs::rename(&temporary, &link).map_err(TrainError::io("publish", &link))
}

/// Writes by way of a temporary file that is synced and renamed.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(TrainError::io("write", path))
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(TrainError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: u64) -> State {
        State { step, position: step * 8, seed: 1, ..State::default() }
    }

    fn publish_one(folder: &Path, step: u64) {
        publish_with(folder, step, Keep { last: 2, every: 0 });
    }

    fn publish_with(folder: &Path, step: u64, keep: Keep) {
        publish(folder, &state(step), "", keep, |dir| {
            fs::write(dir.join("model"), step.to_string()).map_err(TrainError::io("write", dir))
        })
        .unwrap();
    }

    #[test]
    fn latest_is_the_newest_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        (1..=4).for_each(|step| publish_one(folder.path(), step * 100));
        let latest = Checkpoint::latest(folder.path()).unwrap().unwrap();
        assert_eq!(latest.state, state(400));
        assert_eq!(fs::read_to_string(folder.path().join("latest/model")).unwrap(), "400");
        assert_eq!(published(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_previous_one_and_no_debris() {
        let folder = tempfile::tempdir().unwrap();
        publish_one(folder.path(), 100);
        let failure = publish(folder.path(), &state(200), "", Keep { last: 2, every: 0 }, |dir| {
            Err(TrainError::Checkpoint { path: dir.into(), what: "disk full".into() })
        });
        assert!(failure.is_err());
        assert_eq!(Checkpoint::latest(folder.path()).unwrap().unwrap().state.step, 100);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn an_unfinished_folder_of_a_killed_run_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".step-00000900.tmp")).unwrap();
        assert!(Checkpoint::latest(folder.path()).unwrap().is_none());
        publish_one(folder.path(), 900);
        assert_eq!(Checkpoint::latest(folder.path()).unwrap().unwrap().state.step, 900);
    }

    #[test]
    fn what_killed_runs_left_half_written_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        publish_one(folder.path(), 100);
        let half = folder.path().join(".step-00000200.tmp");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("model.safetensors"), "half").unwrap();
        fs::write(folder.path().join(".notes.tmp"), "the user's own").unwrap();
        remove_unfinished(folder.path()).unwrap();
        assert!(!half.exists() && folder.path().join(".notes.tmp").exists());
        assert_eq!(Checkpoint::latest(folder.path()).unwrap().unwrap().state, state(100));
    }

    #[test]
    fn a_state_comes_back_to_the_bit() {
        let mut spikes = SpikeWatch::default();
        assert!((0..50).all(|i| spikes.observe(1.0 / f64::from(i + 3)).is_none()));
        let loss_scale = Some(LossScale { factor: 0.5f64.powi(3), good_steps: 7, skipped_steps: 2, dynamic: true });
        let state = State { loss_scale, spikes, ..state(5) };
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        let before = self::state(1);
        let old = r#"{"step": 1, "position": 8, "seed": 1}"#;
        assert_eq!(serde_json::from_str::<State>(old).unwrap(), before);
    }

    #[test]
    fn milestones_stay_beside_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        (1..=9).for_each(|i| publish_with(folder.path(), i * 100, Keep { last: 2, every: 300 }));
        let steps: Vec<_> = published(folder.path()).unwrap().iter().filter_map(|path| step_of(path)).collect();
        assert_eq!(steps, [300, 600, 800, 900]);
        (10..=12).for_each(|i| publish_with(folder.path(), i * 100, Keep { last: 0, every: 0 }));
        assert_eq!(published(folder.path()).unwrap().len(), 7, "0 keeps all");
    }

    #[test]
    fn the_newest_is_told_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        [99_999_999, 100_000_000].into_iter().for_each(|step| publish_one(folder.path(), step));
        assert_eq!(Checkpoint::latest(folder.path()).unwrap().unwrap().state.step, 100_000_000);
    }
}
