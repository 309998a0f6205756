//! `tokengrid train plot`: loss curves of runs.

use crate::args::Global;
use crate::terminal::print_json;
use serde_json::json;
use std::path::{Path, PathBuf};
use tokengrid_train::plot::{Curve, curve, plot};

/// Runs the command.
pub fn run(runs: &[PathBuf], key: &str, out: &Path, global: &Global) -> anyhow::Result<()> {
    let name = |run: &PathBuf| run.file_name().map_or(run.display().to_string(), |n| n.to_string_lossy().into_owned());
    let curves: Result<Vec<Curve>, _> =
        runs.iter().map(|run| curve(&run.join("metrics.jsonl"), key, &name(run))).collect();
    let curves = curves?;
    let unit = if key.contains("loss") { format!("{key} (nats)") } else { key.to_string() };
    plot(&curves, key, &unit, out)?;
    if global.json {
        return print_json(&json!({ "picture": out }));
    }
    println!("{}", out.display());
    Ok(())
}
