//! `metrics.jsonl`: one JSON object a logged step.

use crate::TrainError;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An open metrics file.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens for appending; lines of steps beyond `step` (a run that was killed after its last checkpoint) are dropped.
    pub(super) fn open(path: &Path, step: u64) -> Result<Metrics, TrainError> {
        if path.is_file() {
            let rows = read_metrics(path)?;
            let kept = rows.iter().filter(|row| row.get("step").and_then(Value::as_u64).is_some_and(|s| s <= step));
            let text: String = kept.map(|row| format!("{}\n", Value::Object(row.clone()))).collect();
            super::checkpoint::write_atomically(path, text.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::io("open", path))?;
        Ok(Metrics { path: path.into(), file })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// The disk is full.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut row = Map::from_iter([("step".to_string(), Value::from(step))]);
        row.extend(values.iter().map(|(name, value)| (name.to_string(), Value::from(*value))));
        let line = format!("{}\n", Value::Object(row));
        self.file.write_all(line.as_bytes()).map_err(TrainError::io("write", &self.path))
    }
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

    #[test]
    fn resuming_drops_later_and_broken_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in 1..=5 {
            metrics.log(step, &[("train/loss", step as f64 / 2.0)]).unwrap();
        }
        metrics.file.write_all(b"{\"step\": 6, \"trai").unwrap();
        Metrics::open(&path, 3).unwrap().log(4, &[("train/loss", 9.0)]).unwrap();
        let rows = read_metrics(&path).unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3]["train/loss"], 9.0);
    }
}
