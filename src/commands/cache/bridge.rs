//! Caches to and from other things, and caches from caches: `cache import`, `export`, `merge`, `subset`.

use super::table::counted;
use crate::args::{ExportFormat, Global, ImportArgs, SubsetArgs};
use crate::exit::Usage;
use crate::terminal::print_json;
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{
    Finished, ImportOptions, MergeInput, OpenMode, Selection, TokenCache, TokenizerInfo, export_npy, export_parquet,
    import_npy, import_npy_pairs, import_parquet,
};

/// Tokens from elsewhere: nobody here knows who made them.
const UNKNOWN_TOKENIZER: &str = "imported";

pub fn import(args: &ImportArgs, global: &Global) -> anyhow::Result<()> {
    let tokenizer = TokenizerInfo {
        name: UNKNOWN_TOKENIZER.into(),
        fingerprint: UNKNOWN_TOKENIZER.into(),
        variant: "unknown".into(),
        precision: "unknown".into(),
        ..TokenizerInfo::default()
    };
    let options =
        ImportOptions { grid: args.grid, bits: args.bits, views: args.views, tokenizer, ..ImportOptions::default() };
    let (labels, keys, mode) = (args.labels.as_deref(), args.keys.as_deref(), mode(args.overwrite));
    let finished = if args.tokens.is_dir() {
        let labels =
            labels.ok_or_else(|| Usage("--labels is needed: the folder of <i>.npy with a label each".into()))?;
        import_npy_pairs(&args.tokens, labels, &options, &args.out, mode)?
    } else if args.tokens.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
        import_parquet(std::slice::from_ref(&args.tokens), &options, &args.out, mode)?
    } else {
        import_npy(&args.tokens, labels, keys, &options, &args.out, mode)?
    };
    report(&finished, &args.out, global)
}

/// Refuses an output folder that is one of the inputs, whatever the path looks like.
fn check_apart(out: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let Some(out_real) = real(out) else { return Ok(()) };
    if inputs.iter().any(|input| real(input).as_ref() == Some(&out_real)) {
        let text = format!("{} is an input, too: a cache is never changed in place; give a new folder", out.display());
        return Err(Usage(text).into());
    }
    Ok(())
}

pub fn export(dir: &Path, format: ExportFormat, out: &Path, overwrite: bool, global: &Global) -> anyhow::Result<()> {
    check_apart(out, &[dir])?;
    let cache = TokenCache::open(dir)?;
    let files = match format {
        ExportFormat::Npy => {
            export_npy(&cache, out, mode(overwrite))?;
            ["tokens.npy", "labels.npy", "keys.txt"].as_slice()
        }
        ExportFormat::ParquetList => {
            export_parquet(&cache, out, mode(overwrite))?;
            ["tokens.parquet"].as_slice()
        }
    };
    let rows = cache.num_rows();
    if global.json {
        return print_json(
            &json!({ "rows": rows, "files": files.iter().map(|name| out.join(name)).collect::<Vec<_>>() }),
        );
    }
    println!("{} in {}: {}", counted(rows, "row"), out.display(), files.join(", "));
    Ok(())
}

pub fn merge(out: &Path, inputs: &[String], overwrite: bool, global: &Global) -> anyhow::Result<()> {
    // A folder may have an equals sign in its name: what exists is a folder.
    let input = |text: &String| match text.split_once('=') {
        Some((split, dir)) if !Path::new(text).exists() && !split.is_empty() => {
            MergeInput { split: Some(split.to_string()), ..MergeInput::new(dir) }
        }
        _ => MergeInput::new(text),
    };
    let inputs: Vec<MergeInput> = inputs.iter().map(input).collect();
    check_apart(out, &inputs.iter().map(|input| input.dir.as_path()).collect::<Vec<_>>())?;
    let finished = tokengrid_cache::merge(out, &inputs, mode(overwrite))?;
    report(&finished, out, global)
}

pub fn subset(args: &SubsetArgs, global: &Global) -> anyhow::Result<()> {
    let SubsetArgs { classes, limit, views, split, .. } = args;
    let selection = Selection { classes: classes.clone(), limit: *limit, views: views.clone(), split: split.clone() };
    check_apart(&args.out, &[&args.dir])?;
    if *limit == Some(0) {
        return Err(Usage("--limit 0 would leave nothing".into()).into());
    }
    let finished = tokengrid_cache::subset(&args.dir, &args.out, &selection, mode(args.overwrite))?;
    report(&finished, &args.out, global)
}

fn mode(overwrite: bool) -> OpenMode {
    if overwrite { OpenMode::Overwrite } else { OpenMode::Resume }
}

fn report(finished: &Finished, out: &Path, global: &Global) -> anyhow::Result<()> {
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
