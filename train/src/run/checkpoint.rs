//! Checkpoints that appear whole or not at all.

use super::cleanup::{make_room, remove_checkpoint};
use super::links::{BEST, LATEST, checkpoint_name, point};
use super::{Best, SpikeWatch};
use crate::TrainError;
use crate::loss_scale::LossScale;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tch::Tensor;
use tokengrid_model::checkpoints::{Search, published, step_of};
use tokengrid_model::weights::to_safetensors;

/// What a trainer needs besides tensors to continue exactly where it stopped. Random numbers are derived from the seed and
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
    /// Samples per step, of all processes together; a run keeps this number for any number of processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_batch: Option<usize>,
    /// State of the loss scaling, in an autoregressive run in fp16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Running mean of the losses, for the detection of spikes.
    #[serde(default)]
    pub spikes: SpikeWatch,
    /// The best value so far of the metric that `train.save_best` names. Its checkpoint stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

/// Which checkpoints stay when a new one is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// This many of the newest; 0: all.
    pub last: usize,
    /// Those whose step is a multiple of this; 0: none.
    pub every: u64,
}

/// A published checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What `state.json` in it says.
    pub state: State,
}

impl Checkpoint {
    /// The newest one below `folder` whose files `needed` are whole. It is an error if there are some and none is whole: a run
    /// that started from nothing instead would replace what may still be repaired.
    pub(super) fn latest(folder: &Path, needed: &[&str]) -> Result<Option<Checkpoint>, TrainError> {
        let Search { found, damaged } = Search::newest(folder, needed).map_err(TrainError::io("read", folder))?;
        let Some(path) = found else {
            return damaged.into_iter().next().map_or(Ok(None), |(path, what)| {
                let what = format!(
                    "{what}, and there is no complete one before it to continue from: restore it, or start again with --overwrite"
                );
                Err(TrainError::Checkpoint { path, what })
            });
        };
        let file = path.join("state.json");
        let text = fs::read_to_string(&file).map_err(TrainError::io("read", &file))?;
        let state = serde_json::from_str(&text)
            .map_err(|e| TrainError::Checkpoint { path: file, what: format!("{e}; remove its folder to continue") })?;
        Ok(Some(Checkpoint { path, state }))
    }
}

pub(super) fn publish(
    folder: &Path,
    state: &State,
    config_toml: &str,
    keep: Keep,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let name = checkpoint_name(state.step);
    let (path, temporary) = (folder.join(&name), folder.join(format!(".{name}.tmp")));
    remove_checkpoint(&temporary)?;
    fs::create_dir(&temporary).map_err(TrainError::io("create", &temporary))?;
    let result = fill(&temporary, state, config_toml, write);
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result?;
    make_room(&path)?;
    fs::rename(&temporary, &path).map_err(TrainError::io("publish", &path))?;
    point(folder, LATEST, &name)?;
    if state.best.as_ref().is_some_and(|best| best.step == state.step) {
        point(folder, BEST, &name)?;
    }
    sync_folder(folder)?;
    remove_old(folder, state, keep)?;
    Ok(path)
}

/// Removes checkpoints that neither `keep` nor the state's best names. Those of later steps stay: they are damaged, and the run,
/// which continued from an earlier one, will replace them.
fn remove_old(folder: &Path, state: &State, keep: Keep) -> Result<(), TrainError> {
    if keep.last == 0 {
        return Ok(());
    }
    let best = state.best.as_ref().map(|best| best.step);
    let is_kept = |step: u64| Some(step) == best || (keep.every > 0 && step.is_multiple_of(keep.every));
    let stays = |path: &Path| step_of(path).is_some_and(is_kept);
    let all = published(folder).map_err(TrainError::io("read", folder))?;
    let so_far = all.iter().filter(|path| step_of(path).is_some_and(|found| found <= state.step));
    let old = so_far.rev().skip(keep.last).filter(|path| !stays(path));
    old.into_iter().try_for_each(|path| remove_checkpoint(path))
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

/// Writes tensors to a safetensors file that appears whole.
///
/// # Errors
/// The folder cannot be written to, or the disk is full; nothing is left under the final name then.
pub fn save_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<(), TrainError> {
    write_atomically(path, &to_safetensors(tensors, metadata))
}

pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    tokengrid_cache::write_atomically(path, bytes).map_err(TrainError::io("write", path))
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(TrainError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::super::links::repair;
    use super::*;
    use tokengrid_model::Weights;
    use tokengrid_model::checkpoints::MODEL;
    use tokengrid_model::checkpoints::newest_checkpoint;

    fn state(step: u64) -> State {
        State { step, position: step * 8, seed: 1, ..State::default() }
    }

    fn publish_one(folder: &Path, step: u64) {
        publish_with(folder, step, Keep { last: 2, every: 0 });
    }

    fn publish_with(folder: &Path, step: u64, keep: Keep) {
        publish(folder, &state(step), "", keep, |dir| {
            save_model(dir, step);
            Ok(())
        })
        .unwrap();
    }

    fn save_model(dir: &Path, step: u64) {
        let tensor = tch::Tensor::from(step as i64);
        let tensors = std::iter::once(("step", &tensor));
        crate::run::save_safetensors(&dir.join("model.safetensors"), tensors, Default::default()).unwrap();
    }

    fn step_at(path: &Path) -> i64 {
        Weights::open(&path.join("model.safetensors")).unwrap().tensor("step").unwrap().int64_value(&[])
    }

    #[test]
    fn latest_is_the_newest_and_old_ones_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        (1..=4).for_each(|step| publish_one(folder.path(), step * 100));
        let latest = Checkpoint::latest(folder.path(), &[MODEL]).unwrap().unwrap();
        assert_eq!(latest.state, state(400));
        assert_eq!(step_at(&folder.path().join("latest")), 400);
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
        assert_eq!(Checkpoint::latest(folder.path(), &[MODEL]).unwrap().unwrap().state.step, 100);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn an_unfinished_folder_of_a_killed_run_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".step-00000900.tmp")).unwrap();
        assert!(Checkpoint::latest(folder.path(), &[MODEL]).unwrap().is_none());
        publish_one(folder.path(), 900);
        assert_eq!(Checkpoint::latest(folder.path(), &[MODEL]).unwrap().unwrap().state.step, 900);
    }

    #[test]
    fn the_newest_complete_checkpoint_is_used_for_any_target_of_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let checkpoints = run.join("checkpoints");
        fs::create_dir(&checkpoints).unwrap();
        [100, 200].into_iter().for_each(|step| publish_one(&checkpoints, step));
        point(&checkpoints, LATEST, "step-00000100").unwrap();
        let newest = checkpoints.join("step-00000200");
        let found = (newest_checkpoint(run), newest_checkpoint(&checkpoints));
        assert_eq!(found, (Some(newest.clone()), Some(newest.clone())));
        repair(&checkpoints, &[MODEL]).unwrap();
        assert_eq!(step_at(&checkpoints.join("latest")), 200);
        // Damaged after it was published: the one before it.
        let model = newest.join("model.safetensors");
        let bytes = fs::read(&model).unwrap();
        fs::write(&model, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(newest_checkpoint(run), Some(checkpoints.join("step-00000100")));
    }

    #[test]
    fn a_later_damaged_one_does_not_displace_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep { last: 1, every: 0 };
        [100, 200].into_iter().for_each(|step| publish_with(folder.path(), step, Keep { last: 2, every: 0 }));
        let needed = [MODEL, "optimizer.safetensors"];
        let optimizer = |step: u64| folder.path().join(format!("step-{step:08}/optimizer.safetensors"));
        std::fs::copy(optimizer(100).with_file_name(MODEL), optimizer(100)).unwrap();
        let newest = |needed: &[&str]| Checkpoint::latest(folder.path(), needed).unwrap().unwrap().state.step;
        assert_eq!((newest(&needed), newest(&[MODEL])), (100, 200), "the optimizer of the second is missing");
        std::fs::write(optimizer(200), "cut").unwrap();
        assert_eq!(newest(&needed), 100);
        publish_with(folder.path(), 150, keep);
        assert!(folder.path().join("step-00000150").is_dir(), "it is the newest of the continued run");
        publish_with(folder.path(), 200, keep);
        assert_eq!(published(folder.path()).unwrap(), [folder.path().join("step-00000200")]);
        // No checkpoint is complete.
        std::fs::write(folder.path().join("step-00000200").join(MODEL), "cut").unwrap();
        let error = Checkpoint::latest(folder.path(), &[MODEL]).unwrap_err().to_string();
        assert!(error.contains("step-00000200") && error.contains("--overwrite"), "{error}");
    }

    #[test]
    fn a_folder_in_place_of_the_link_is_removed_if_it_is_a_second_copy() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("latest");
        let copy_links_followed = |step: u64| {
            fs::remove_file(&link).unwrap();
            fs::create_dir(&link).unwrap();
            for file in fs::read_dir(folder.path().join(format!("step-{step:08}"))).unwrap().flatten() {
                fs::copy(file.path(), link.join(file.file_name())).unwrap();
            }
        };
        publish_one(folder.path(), 100);
        copy_links_followed(100);
        repair(folder.path(), &[MODEL]).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("step-00000100"));
        copy_links_followed(100);
        fs::write(link.join("notes.txt"), "the user's own").unwrap();
        publish_one(folder.path(), 200);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("step-00000200"));
        assert!(folder.path().join("latest.others-1/notes.txt").is_file());
        assert!(folder.path().join("latest.others-1").join(MODEL).is_file());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        publish_one(folder.path(), 100);
        let notes = folder.path().join("step-00000100/notes.txt");
        fs::write(&notes, "the user's own").unwrap();
        [200, 300].into_iter().for_each(|step| publish_one(folder.path(), step));
        assert_eq!(fs::read_dir(notes.parent().unwrap()).unwrap().count(), 1, "the notes, and no weights");
        assert_eq!(published(folder.path()).unwrap().len(), 2);
        // Its step is repeated.
        publish_with(folder.path(), 100, Keep { last: 0, every: 0 });
        assert!(folder.path().join("step-00000100.others-1/notes.txt").is_file());
        assert_eq!(published(folder.path()).unwrap().len(), 3);
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
    fn the_best_is_kept_after_later_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        let publish_best = |step: u64, best: u64| {
            let best = Some(Best { metric: "val/loss".into(), value: 1.0, step: best });
            let write = |dir: &Path| {
                save_model(dir, step);
                Ok(())
            };
            publish(folder.path(), &State { best, ..state(step) }, "", Keep { last: 2, every: 0 }, write).unwrap();
        };
        publish_best(100, 100);
        [200, 300, 400, 500].into_iter().for_each(|step| publish_best(step, 100));
        let steps = || published(folder.path()).unwrap().iter().filter_map(|path| step_of(path)).collect::<Vec<_>>();
        assert_eq!((steps(), step_at(&folder.path().join("best"))), (vec![100, 400, 500], 100));
        publish_best(600, 600);
        publish_best(700, 600);
        assert_eq!((steps(), step_at(&folder.path().join("best"))), (vec![600, 700], 600));
        // Killed between a checkpoint and its links.
        point(folder.path(), BEST, "step-00000700").unwrap();
        repair(folder.path(), &[MODEL]).unwrap();
        assert_eq!(step_at(&folder.path().join("best")), 600);
        fs::remove_file(folder.path().join("best")).unwrap();
        repair(folder.path(), &[MODEL]).unwrap();
        assert_eq!(step_at(&folder.path().join("best")), 600);
    }

    #[test]
    fn the_newest_is_the_one_with_the_largest_number() {
        let folder = tempfile::tempdir().unwrap();
        [99_999_999, 100_000_000].into_iter().for_each(|step| publish_one(folder.path(), step));
        assert_eq!(Checkpoint::latest(folder.path(), &[MODEL]).unwrap().unwrap().state.step, 100_000_000);
    }
}
