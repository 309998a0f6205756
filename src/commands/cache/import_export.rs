//! `cache import` and `cache export`: caches from and to other programs' files.

use super::made::{check_apart, mode, report};
use crate::terminal::counted;
use crate::args::{ExportFormat, Global, ImportArgs};
use crate::exit::Usage;
use crate::terminal::print_json;
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{
    ImportOptions, TokenCache, TokenizerInfo, export_npy, export_parquet, import_npy, import_npy_pairs, import_parquet,
};

/// Tokenizer name of imported tokens, whose tokenizer is unknown.
const UNKNOWN_TOKENIZER: &str = "imported";

pub(super) fn import(args: &ImportArgs, global: &Global) -> anyhow::Result<()> {
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

pub(super) fn export(dir: &Path, format: ExportFormat, out: &Path, overwrite: bool, global: &Global) -> anyhow::Result<()> {
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
