//! Looking at a cache: `cache info`, `verify`, `show`, `stats`.

use super::plot;
use crate::args::Global;
use crate::exit::{CheckFailed, Usage};
use crate::files::check_target;
use crate::terminal::{Meter, bytes, print_json};
use serde_json::json;
use std::path::Path;
use tokengrid_cache::{CacheStats, TokenCache, inspect, verify};

pub fn info(dir: &Path, global: &Global) -> anyhow::Result<()> {
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
    if !info.margins.is_empty() {
        let (near, all) = (info.margins.within(1e-3), info.margins.bits());
        println!("  near 0         {near} of {all} bits within 1e-3, by bins {:?}", info.margins.counts);
    }
    println!("  recipe         {}", info.recipe);
    println!(
        "  source         {}: {} inputs, {} excluded",
        info.source.location, info.source.images, info.source.excluded
    );
    println!("  classes        {}", info.classes);
    println!("  content hash   {}", info.content_hash);
    Ok(())
}

pub fn check(dir: &Path, global: &Global) -> anyhow::Result<()> {
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

pub fn show(dir: &Path, index: usize, global: &Global) -> anyhow::Result<()> {
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

pub fn stats(dir: &Path, picture: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    if let Some(path) = picture {
        check_target(path, b"\x89PNG")?;
    }
    let stats = tokengrid_cache::stats(&cache)?;
    if let Some(path) = picture {
        plot::stats(&stats, path)?;
    }
    if global.json { print_json(&stats) } else { print_stats(&stats, picture) }
}

fn print_stats(stats: &CacheStats, picture: Option<&Path>) -> anyhow::Result<()> {
    println!("  rows           {} ({} images x {} views)", stats.rows, stats.images, stats.views);
    println!(
        "  codebook       {} of {} codes used ({:.2} %), entropy {:.2} bits",
        stats.distinct_codes,
        stats.codebook_size,
        100.0 * stats.codebook_utilization,
        stats.code_entropy_bits
    );
    let balance: Vec<String> = stats.bit_balance.iter().map(|share| format!("{:.0}", 100.0 * share)).collect();
    println!("  bits           1 in {} % of the tokens, from the lowest bit on", balance.join(" "));
    match stats.dead_bits.as_slice() {
        [] => println!("  dead bits      none"),
        dead => println!("  dead bits      {dead:?}: the same in every token"),
    }
    let used = stats.classes.iter().filter(|class| class.rows > 0);
    let (least, most) = used.fold((u64::MAX, 0), |(least, most), class| (least.min(class.rows), most.max(class.rows)));
    if most > 0 {
        let (named, empty) = (stats.classes.len(), stats.empty_classes);
        println!("  classes        {named}, {empty} of them empty; {least} to {most} rows each");
    }
    if stats.unlabelled_rows > 0 {
        println!("  unlabelled     {} rows have the label -1", stats.unlabelled_rows);
    }
    let duplicates = &stats.duplicates;
    println!("  duplicates     {} rows have the grid of another image", duplicates.rows);
    for (row, first) in duplicates.first.iter().take(10) {
        println!("                 row {row} = row {first}");
    }
    if let Some(path) = picture {
        println!("  picture        {}", path.display());
    }
    Ok(())
}
