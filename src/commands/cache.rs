//! `tokengrid cache ...`: what is in a cache, and whether it is whole.

use crate::args::{CacheCommand, Global};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::{Meter, bytes, print_json};
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{TokenCache, inspect, verify};

/// Runs the command.
pub fn run(command: &CacheCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        CacheCommand::Info { dir } => info(dir, global),
        CacheCommand::Verify { dir } => check(dir, global),
        CacheCommand::Show { dir, index } => show(dir, *index, global),
    }
}

fn info(dir: &Path, global: &Global) -> anyhow::Result<()> {
    let info = inspect(dir)?;
    if global.json {
        return print_json(&info);
    }
    let [height, width] = info.grid;
    println!("{}", dir.display());
    println!(
        "  rows           {} ({} images x {} views, {} quarantined)",
        info.rows, info.images, info.views, info.quarantined
    );
    println!("  grid           {height} x {width} tokens of {} bits", info.bits);
    println!(
        "  size           {} in {} shards, {:.1} bytes a row",
        bytes(info.bytes),
        info.shards.len(),
        info.bytes_per_row
    );
    let tokenizer = &info.tokenizer;
    println!(
        "  tokenizer      {} ({}, {}), {}",
        tokenizer.name, tokenizer.variant, tokenizer.precision, tokenizer.fingerprint
    );
    println!("  recipe         {}", info.recipe);
    println!(
        "  source         {}: {} inputs, {} excluded",
        info.source.location, info.source.images, info.source.excluded
    );
    println!("  classes        {}", info.classes);
    println!("  content hash   {}", info.content_hash);
    Ok(())
}

fn check(dir: &Path, global: &Global) -> anyhow::Result<()> {
    let mut meter = Meter::new(global, "MB");
    let report = verify(dir, &mut |done, total| meter.update(done / 1_000_000, total.div_ceil(1_000_000), ""))?;
    drop(meter);
    if global.json {
        print_json(&report)?;
    } else {
        report.problems.iter().for_each(|problem| println!("{problem}"));
        if report.is_ok() {
            println!("ok: {} rows, {}, every checksum holds", report.rows, bytes(report.bytes));
        }
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(CheckFailed(format!("{}: {count} problems found", dir.display())).into()),
    }
}

fn show(dir: &Path, index: usize, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    if index >= cache.num_rows() {
        let rows = cache.num_rows();
        return Err(Usage(format!("--index {index}: {} has {rows} rows, counted from 0", dir.display())).into());
    }
    let (meta, grid) = (cache.meta(index)?, cache.grid());
    let mut tokens = vec![0u32; grid.num_tokens()];
    cache.tokens_into(index, &mut tokens);
    let rows: Vec<&[u32]> = tokens.chunks(grid.width as usize).collect();
    let class = usize::try_from(meta.label).ok().and_then(|label| cache.manifest().classes.get(label)).cloned();
    if global.json {
        return print_json(&json!({
            "index": index, "key": meta.key, "label": meta.label, "class": class, "view": meta.view,
            "crop_x": meta.crop_x, "crop_y": meta.crop_y, "flip": meta.flip, "tokens": rows,
        }));
    }
    println!("row {index}: {}", meta.key);
    println!("  label {} ({})", meta.label, class.unwrap_or_else(|| "unknown".into()));
    println!(
        "  view {}, crop at ({}, {}){}",
        meta.view,
        meta.crop_x,
        meta.crop_y,
        if meta.flip { ", mirrored" } else { "" }
    );
    let digits = (1u64 << grid.bits).saturating_sub(1).to_string().len();
    for row in rows {
        println!("  {}", row.iter().map(|token| format!("{token:>digits$}")).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
