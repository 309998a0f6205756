//! A training run's folder: configuration, metrics, checkpoints.
//!
//! ```text
//! out/
//!   config.toml                    fully resolved
//!   metrics.jsonl                  one object per logged step
//!   events.out.tfevents.*          the same and the pictures, for TensorBoard; a file each time the run was started
//!   samples/step-00000400.png      samples or reconstructions
//!   checkpoints/step-00000400/     published by rename: tensors, optimizer, state.json, config.toml
//!   checkpoints/latest             symbolic link to the newest
//!   checkpoints/best               symbolic link to the best, if `train.save_best` names a metric
//! ```

mod best;
mod checkpoint;
mod cleanup;
mod events;
mod links;
mod lock;
mod logger;
mod metrics;
mod shared;
mod spikes;

use crate::TrainError;
use crate::config::{Config, first_difference, recorded, to_toml};
pub use best::Best;
pub(crate) use best::Criterion;
pub(crate) use checkpoint::Checkpoint;
pub(crate) use checkpoint::Keep;
pub(crate) use checkpoint::write_atomically;
pub use checkpoint::{State, save_safetensors};
pub use logger::Loggers;
pub(crate) use metrics::Metrics;
pub use metrics::read_metrics;
pub(crate) use shared::{open_folder, share_state};
pub use spikes::SpikeWatch;
use std::path::{Path, PathBuf};

/// Name of the resolved configuration in a run's folder.
const CONFIG: &str = "config.toml";

/// The folder of one run, which no other process opens while this value lives.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    config_toml: String,
    /// The configuration that was in the folder.
    before: Option<String>,
    /// Files that a checkpoint must have to continue from.
    needed: Vec<&'static str>,
    _lock: Option<lock::RunLock>,
}

impl RunFolder {
    /// Creates the folder, or continues the run in it: then the configuration must be the same except for the keys in
    /// `free`. With `overwrite` the run in it is removed first.
    ///
    /// # Errors
    /// A folder that cannot be written to, that holds something else, another run, or one that another process trains.
    pub(crate) fn open<C: Config>(
        path: &Path,
        config: &C,
        free: &[&str],
        overwrite: bool,
    ) -> Result<RunFolder, TrainError> {
        let config_toml = to_toml(config)?;
        refuse_foreign::<C>(path)?;
        std::fs::create_dir_all(path).map_err(TrainError::io("create", path))?;
        let lock = lock::RunLock::take(path)?;
        // Again under the lock: another process may have started a run here meanwhile.
        refuse_foreign::<C>(path)?;
        if overwrite && path.join(CONFIG).is_file() {
            cleanup::remove_run(path)?;
        }
        let before = read_record(path)?;
        if let Some(was) = &before {
            let (was, now) = (recorded::<C>(was).unwrap_or_default(), config_toml.parse().unwrap_or_default());
            if let Some((key, was, now)) = first_difference(&was, &now, free) {
                return Err(TrainError::OtherRun { path: path.into(), key, was, now });
            }
        }
        cleanup::remove_unfinished(path)?;
        // The record comes first: a folder with other files and no record is refused as foreign.
        write_atomically(&path.join(CONFIG), config_toml.as_bytes())?;
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(TrainError::io("create", &checkpoints))?;
        let needed = config.resumes_from();
        links::repair(&checkpoints, &needed)?;
        Ok(RunFolder { path: path.into(), config_toml, before, needed, _lock: Some(lock) })
    }

    /// The folder of a run that another process has opened: nothing is written.
    ///
    /// # Errors
    /// A configuration that TOML cannot express.
    pub(crate) fn join<C: Config>(path: &Path, config: &C) -> Result<RunFolder, TrainError> {
        let (config_toml, needed) = (to_toml(config)?, config.resumes_from());
        Ok(RunFolder { path: path.into(), config_toml, before: None, needed, _lock: None })
    }

    /// The configuration that the run had until now; `None` for a new one.
    pub(crate) fn before<C: Config>(&self) -> Option<C> {
        recorded::<C>(self.before.as_deref()?)?.try_into().ok()
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest checkpoint that has all files that the run needs to continue, if there is one.
    ///
    /// # Errors
    /// The folder cannot be read; there are checkpoints, and all are damaged.
    pub(crate) fn latest(&self) -> Result<Option<Checkpoint>, TrainError> {
        Checkpoint::latest(&self.path.join("checkpoints"), &self.needed)
    }

    /// Publishes a checkpoint of `state`: `write` fills a folder that then appears under its final name, whole. Older
    /// ones that `keep` does not name are removed afterwards.
    ///
    /// # Errors
    /// The disk is full or read-only; earlier checkpoints stay as they are.
    pub(crate) fn publish(
        &self,
        state: &State,
        keep: Keep,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        checkpoint::publish(&self.path.join("checkpoints"), state, &self.config_toml, keep, write)
    }

    /// Metrics and, if they are among `loggers`, events, cut back to the steps up to `step`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn metrics(&self, step: u64, loggers: &Loggers) -> Result<Metrics, TrainError> {
        Metrics::open(&self.path, step, loggers)
    }
}

/// The configuration of the run in `folder`, if there is one.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn configuration<C: Config>(folder: &Path) -> Result<Option<C>, TrainError> {
    Ok(read_record(folder)?.and_then(|text| recorded::<C>(&text)?.try_into().ok()))
}

fn read_record(folder: &Path) -> Result<Option<String>, TrainError> {
    let file = folder.join(CONFIG);
    if !file.is_file() {
        return Ok(None);
    }
    std::fs::read_to_string(&file).map(Some).map_err(TrainError::io("read", &file))
}

/// Refuses a folder that holds something else than a run of this kind.
fn refuse_foreign<C: Config>(path: &Path) -> Result<(), TrainError> {
    let refuse = |found: &str| {
        let what = format!("the folder is not empty and holds no run ({found}); choose another --out");
        Err(TrainError::Checkpoint { path: path.into(), what })
    };
    match read_record(path)? {
        Some(text) if recorded::<C>(&text).is_some() => Ok(()),
        Some(_) => refuse("its config.toml is of another program or another kind of run"),
        None => match cleanup::foreign_entry(path)? {
            Some(entry) => refuse(&entry.file_name().unwrap_or_default().to_string_lossy()),
            None => Ok(()),
        },
    }
}
