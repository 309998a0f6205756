//! `cache info`: the contents of the manifest.

use crate::terminal::counted;
use crate::args::Global;
use crate::terminal::{bytes, print_json};
use std::path::Path;
use tokengrid_cache::inspect;

pub(super) fn info(dir: &Path, global: &Global) -> anyhow::Result<()> {
    let info = inspect(dir)?;
    if global.json {
        return print_json(&info);
    }
    let [height, width] = info.grid;
    println!("{}", dir.display());
    println!(
        "  rows           {} ({} x {}, {} quarantined)",
        info.rows,
        counted(info.images, "image"),
        counted(info.views as usize, "view"),
        info.quarantined
    );
    println!("  grid           {height} x {width} tokens of {} bits", info.bits);
    println!(
        "  size           {} in {}, {:.1} bytes per row",
        bytes(info.bytes),
        counted(info.shards.len(), "shard"),
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
        "  source         {}: {}, {} excluded",
        info.source.location,
        counted(info.source.images, "input"),
        info.source.excluded
    );
    let attached = &info.source.attached;
    if !attached.is_empty() {
        let total = attached.values().map(|file| file.bytes).sum();
        println!("  attached       {}, {}", counted(attached.len(), "file"), bytes(total));
    }
    println!("  classes        {}", info.classes);
    for (split, title) in info.splits.iter().zip(["splits"].into_iter().chain(std::iter::repeat(""))) {
        let rows = match split.rows {
            0 => "no rows".to_owned(),
            1 => format!("1 row, {}", split.first_row),
            rows => format!("{rows} rows, {} to {}", split.first_row, split.first_row + rows - 1),
        };
        println!("  {title:<14} {}: {}, {rows}", split.name, counted(split.images, "image"));
    }
    println!("  content hash   {}", info.content_hash);
    Ok(())
}
