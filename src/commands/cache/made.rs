//! Shared by the commands that make a cache, or files from a cache.

use crate::terminal::counted;
use crate::args::Global;
use crate::exit::Usage;
use crate::terminal::print_json;
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{Finished, OpenMode};

/// Refuses an output folder that is one of the inputs, compared by file identity, not by path.
pub(super) fn check_apart(out: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let Some(out_real) = real(out) else { return Ok(()) };
    if inputs.iter().any(|input| real(input).as_ref() == Some(&out_real)) {
        let text = format!("{} is an input, too: a cache is never changed in place; give a new folder", out.display());
        return Err(Usage(text).into());
    }
    Ok(())
}

pub(super) fn mode(overwrite: bool) -> OpenMode {
    if overwrite { OpenMode::Overwrite } else { OpenMode::Resume }
}

pub(super) fn report(finished: &Finished, out: &Path, global: &Global) -> anyhow::Result<()> {
    let Finished { rows, images, quarantined, content_hash, .. } = finished;
    if global.json {
        return print_json(&json!({
            "rows": rows, "images": images, "quarantined": quarantined, "content_hash": content_hash,
        }));
    }
    println!(
        "{} ({}) in {}, content hash {}",
        counted(*rows, "row"),
        counted(*images, "image"),
        out.display(),
        content_hash.as_deref().unwrap_or("")
    );
    Ok(())
}
