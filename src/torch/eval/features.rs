//! `tokengrid eval features`: the FID of two matrices of features.

use crate::args::Global;
use crate::ranks::ranks;
use crate::terminal::print_json;
use serde_json::json;
use std::path::Path;
use tokengrid_eval::{frechet_distance, statistics};

/// Runs the command.
pub(super) fn run(a: &Path, b: &Path, global: &Global) -> anyhow::Result<()> {
    // The work is not divided; only rank 0 does it.
    if ranks(None, None)?.0 > 0 {
        return Ok(());
    }
    if let Some(threads) = global.threads {
        tch::set_num_threads(threads.into());
    }
    let fid = frechet_distance(&statistics::of_features(a)?, &statistics::of_features(b)?)?;
    if global.json {
        return print_json(&json!({ "fid": fid }));
    }
    println!("FID {fid:.4}");
    Ok(())
}
