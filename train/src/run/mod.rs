//! A training run's folder: configuration, metrics, checkpoints.
//!
//! ```text
//! out/
//!   config.toml                    fully resolved
//!   metrics.jsonl                  an object a logged step
//!   events.out.tfevents.*          the same and the pictures, for TensorBoard; a file each time the run was started
//!   samples/step-00000400.png      what the model makes
//!   checkpoints/step-00000400/     published by rename: tensors, optimizer, state.json, config.toml
//!   checkpoints/latest             symbolic link to the newest
//! ```

mod checkpoint;
mod events;
mod metrics;
mod processes;
mod spikes;

pub use checkpoint::{Checkpoint, Keep, State};
pub use metrics::{Metrics, read_metrics};
pub use processes::{OneProcess, Processes, ThreadProcesses};
pub use spikes::SpikeWatch;

use crate::TrainError;
use crate::config::{Config, first_difference, to_toml};
use std::path::{Path, PathBuf};

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    config_toml: String,
}

impl RunFolder {
    /// Creates the folder, or continues the run in it: then the configuration must be the same but for the keys in
    /// `free`.
    ///
    /// # Errors
    /// A folder that cannot be written to, that holds something else, or another run.
    pub fn open<C: Config>(path: &Path, config: &C, free: &[&str], overwrite: bool) -> Result<RunFolder, TrainError> {
        let config_toml = to_toml(config)?;
        let file = path.join("config.toml");
        if overwrite && file.is_file() {
            events::event_files(path)?.iter().try_for_each(|old| remove(old))?;
            for old in ["checkpoints", "samples", "metrics.jsonl", "config.toml"] {
                remove(&path.join(old))?;
            }
        }
        if file.is_file() {
            let text = std::fs::read_to_string(&file).map_err(TrainError::io("read", &file))?;
            let (was, now) = (text.parse().unwrap_or_default(), config_toml.parse().unwrap_or_default());
            if let Some((key, was, now)) = first_difference(&was, &now, free) {
                return Err(TrainError::OtherRun { path: path.into(), key, was, now });
            }
        } else if path.is_dir() && path.read_dir().map_err(TrainError::io("read", path))?.next().is_some() {
            let what = "the folder is not empty and holds no run; choose another --out".to_string();
            return Err(TrainError::Checkpoint { path: path.into(), what });
        }
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(TrainError::io("create", &checkpoints))?;
        checkpoint::remove_unfinished(&checkpoints)?;
        checkpoint::write_atomically(&file, config_toml.as_bytes())?;
        Ok(RunFolder { path: path.into(), config_toml })
    }

    /// The folder of a run that another process has opened: nothing is written.
    ///
    /// # Errors
    /// A configuration that TOML cannot express.
    pub fn join<C: Config>(path: &Path, config: &C) -> Result<RunFolder, TrainError> {
        Ok(RunFolder { path: path.into(), config_toml: to_toml(config)? })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest checkpoint, if there is one.
    ///
    /// # Errors
    /// A checkpoint whose state cannot be read.
    pub fn latest(&self) -> Result<Option<Checkpoint>, TrainError> {
        Checkpoint::latest(&self.path.join("checkpoints"))
    }

    /// Publishes a checkpoint of `state`: `write` fills a folder that then appears under its final name, whole. Older
    /// ones that `keep` does not name are removed afterwards.
    ///
    /// # Errors
    /// The disk is full or read-only; earlier checkpoints stay as they are.
    pub fn publish(
        &self,
        state: &State,
        keep: Keep,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        checkpoint::publish(&self.path.join("checkpoints"), state, &self.config_toml, keep, write)
    }

    /// Metrics and events, cut back to the steps up to `step`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn metrics(&self, step: u64) -> Result<Metrics, TrainError> {
        Metrics::open(&self.path, step)
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    let result = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
