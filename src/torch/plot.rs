//! `tokengrid train plot`: loss curves of runs.

use crate::args::Global;
use crate::files::{check_target, is_own_png};
use crate::terminal::print_json;
use serde_json::json;
use std::path::{Path, PathBuf};
use tokengrid_train::plot::{Curve, Style, curve, plot};

/// Runs the command.
pub(super) fn run(runs: &[PathBuf], key: &str, smooth: f64, out: &Path, global: &Global) -> anyhow::Result<()> {
    check_target(out, is_own_png)?;
    let names = names(runs);
    let curves: Result<Vec<Curve>, _> =
        runs.iter().zip(&names).map(|(run, name)| curve(&run.join("metrics.jsonl"), key, name)).collect();
    let nats = ["train/loss", "train/loss_pre", "train/loss_post", "val/loss"].contains(&key);
    let label = if nats { format!("{key} (nats per token)") } else { key.to_string() };
    plot(&curves?, &Style { title: key, label: &label, smooth }, out)?;
    if global.json {
        return print_json(&json!({ "picture": out }));
    }
    println!("{}", out.display());
    Ok(())
}

/// Names of the runs in the legend: their folders' names, or the paths as given if two names are equal.
fn names(runs: &[PathBuf]) -> Vec<String> {
    let short = |run: &PathBuf| run.file_name().map_or(run.display().to_string(), |n| n.to_string_lossy().into_owned());
    let all: Vec<String> = runs.iter().map(short).collect();
    let different = all.iter().collect::<std::collections::BTreeSet<_>>().len() == all.len();
    if different { all } else { runs.iter().map(|run| run.display().to_string()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_name_are_distinguished_by_their_paths() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(names(&paths(&["runs/a", "runs/b"])), ["a", "b"]);
        assert_eq!(names(&paths(&["x/run", "y/run"])), ["x/run", "y/run"]);
    }
}
