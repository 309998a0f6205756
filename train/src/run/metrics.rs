//! Metrics of a run: `metrics.jsonl`, one JSON object per logged step, the same numbers for TensorBoard, and
//! pictures.

use super::Loggers;
use super::events::Events;
use crate::TrainError;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokengrid_model::Picture;

/// The open files of a run's metrics. Nothing is buffered: what was logged is in the file, however the process ends.
#[derive(Debug)]
pub(crate) struct Metrics {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    events: Option<Events>,
}

impl Metrics {
    /// Opens those in `folder` for appending; lines of steps beyond `step` (a run that was killed after its last
    /// checkpoint) are dropped.
    pub(super) fn open(folder: &Path, step: u64, loggers: &Loggers) -> Result<Metrics, TrainError> {
        let path = folder.join("metrics.jsonl");
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
            // Lines are kept unchanged: a number that is parsed and printed may get another last digit.
            let text: String = text.lines().filter(|line| is_of(line, step)).map(|line| format!("{line}\n")).collect();
            super::checkpoint::write_atomically(&path, text.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::io("open", &path))?;
        let events = loggers.tensorboard().then(|| Events::open(folder, step)).transpose()?;
        Ok(Metrics { folder: folder.into(), path, file, events })
    }

    /// Appends one line, and one event. A value that is not finite is `null` in the line.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut row = Map::from_iter([("step".to_string(), Value::from(step))]);
        row.extend(values.iter().map(|(name, value)| (name.to_string(), Value::from(*value))));
        let line = format!("{}\n", Value::Object(row));
        self.file.write_all(line.as_bytes()).map_err(TrainError::io("write", &self.path))?;
        self.events.as_mut().map_or(Ok(()), |events| events.scalars(step, values))
    }

    /// Writes a picture of a step to `samples/step-%08d.png` and, as `tag`, to the events. Returns its path.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn picture(&mut self, step: u64, tag: &str, picture: &Picture) -> Result<PathBuf, TrainError> {
        let samples = self.folder.join("samples");
        std::fs::create_dir_all(&samples).map_err(TrainError::io("create", &samples))?;
        let (path, png) = (samples.join(format!("step-{step:08}.png")), picture.to_png());
        super::checkpoint::write_atomically(&path, &png)?;
        self.events.as_mut().map_or(Ok(()), |events| events.picture(step, tag, picture, &png))?;
        Ok(path)
    }
}

/// Whether a line is whole and of a step up to `step`.
fn is_of(line: &str, step: u64) -> bool {
    let row: Option<Map<String, Value>> = serde_json::from_str(line).ok();
    row.and_then(|row| row.get("step")?.as_u64()).is_some_and(|of| of <= step)
}

/// The rows of a metrics file; a half-written last line (the process was killed) is left out.
///
/// # Errors
/// The file cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<Map<String, Value>>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io("read", path))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, step: u64) -> Result<Metrics, TrainError> {
        Metrics::open(folder, step, &Loggers::default())
    }

    #[test]
    fn resuming_drops_later_and_broken_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = open(folder.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.log(step, &[("train/loss", step as f64 / 2.0)]).unwrap();
        }
        metrics.file.write_all(b"{\"step\": 6, \"trai").unwrap();
        open(folder.path(), 3).unwrap().log(4, &[("train/loss", 9.0)]).unwrap();
        let rows = read_metrics(&folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3]["train/loss"], 9.0);
    }

    #[test]
    fn resuming_keeps_earlier_lines_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = open(folder.path(), 0).unwrap();
        for step in 1..=200u32 {
            metrics.log(step.into(), &[("train/loss", f64::from(step).ln() / 3.0)]).unwrap();
        }
        let read = || std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let before = read();
        open(folder.path(), 200).unwrap();
        assert_eq!(read(), before);
    }

    #[test]
    fn values_that_are_not_finite_become_null() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 0).unwrap().log(1, &[("train/loss", f64::NAN), ("lr", 0.5)]).unwrap();
        let rows = read_metrics(&folder.path().join("metrics.jsonl")).unwrap();
        assert!(rows[0]["train/loss"].is_null() && rows[0]["lr"] == 0.5, "{rows:?}");
    }

    #[test]
    fn pictures_lie_in_samples_by_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = open(folder.path(), 0).unwrap();
        let picture = Picture::new(2, 1, vec![9; 6]);
        let path = metrics.picture(70, "samples", &picture).unwrap();
        assert_eq!(path, folder.path().join("samples/step-00000070.png"));
        assert!(std::fs::read(&path).unwrap() == picture.to_png());
    }
}
