//! Commands over all rows of a cache: `cache stats`, `classes`, `diff`.

use super::plot;
use super::table::{Table, shortened_apart};
use crate::terminal::counted;
use crate::args::{ClassOrder, Global};
use crate::exit::CheckFailed;
use crate::files::{check_target, is_own_png};
use crate::signals;
use crate::terminal::{Meter, print_json};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokengrid_cache::{CacheDiff, CacheStats, ClassRows, Inspection, TokenCache};

/// Folder for the inspections of caches in read-only folders: the user's cache folder.
pub(crate) fn inspection_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("tokengrid/inspect"))
}

/// The statistics of a cache: stored ones if they are up to date, else computed.
fn inspection(dir: &Path, global: &Global) -> anyhow::Result<Inspection> {
    let cache = TokenCache::open(dir)?;
    let mut meter = Meter::new(global, "rows");
    let threads = global.threads.map(usize::from);
    let mut progress = |done, total| meter.update(done, total, "");
    let elsewhere = inspection_folder();
    Ok(Inspection::load_or_compute(&cache, elsewhere.as_deref(), threads, signals::flag(), &mut progress)?)
}

pub(super) fn stats(dir: &Path, picture: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    if let Some(path) = picture {
        check_target(path, is_own_png)?;
    }
    let stats = inspection(dir, global)?.stats;
    if let Some(path) = picture {
        plot::stats(&stats, path)?;
    }
    if global.json { print_json(&stats) } else { print_stats(&stats, picture) }
}

fn print_stats(stats: &CacheStats, picture: Option<&Path>) -> anyhow::Result<()> {
    let (images, views) = (counted(stats.images, "image"), counted(stats.views, "view"));
    println!("  rows           {} ({images} x {views})", stats.rows);
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
        println!("  unlabelled     {} of the label -1", counted(stats.unlabelled_rows as usize, "row"));
    }
    let duplicates = &stats.duplicates;
    println!("  duplicates     {} with the grid of another image", counted(duplicates.rows as usize, "row"));
    for (row, first) in duplicates.first.iter().take(10) {
        println!("                 row {row} = row {first}");
    }
    let near = &stats.near_duplicates;
    let more = if near.is_cut_short { "; there may be more" } else { "" };
    let pairs = counted(near.pairs, "pair");
    println!("  near           {pairs} of images with half of their tokens or more in common{more}");
    match near.guaranteed_distance {
        Some(bits) => println!("                 none is missed whose first views differ in at most {}", counted(bits, "bit")),
        None => println!("                 some may be missed: `cache leak DIR DIR` misses none"),
    }
    for pair in near.listed.iter().take(5) {
        println!("                 row {} ~ row {}: {} tokens agree", pair.first, pair.row, pair.equal_tokens);
    }
    let conflicts = &stats.label_conflicts;
    if conflicts.compared > 0 {
        println!(
            "  labels         {} of {} images lie in a folder of another class's name",
            conflicts.images, conflicts.compared
        );
    }
    for conflict in conflicts.listed.iter().take(5) {
        println!("                 row {}: label {}, folder of {}", conflict.row, conflict.label, conflict.folder);
    }
    if let Some(path) = picture {
        println!("  picture        {}", path.display());
    }
    Ok(())
}

pub(super) fn classes(dir: &Path, sort: ClassOrder, picture: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    if let Some(path) = picture {
        check_target(path, is_own_png)?;
    }
    let stats = inspection(dir, global)?.stats;
    let mut classes = stats.classes.clone();
    match sort {
        ClassOrder::Label => {}
        ClassOrder::Rows => classes.sort_by_key(|class| std::cmp::Reverse(class.rows)),
        ClassOrder::Entropy => classes.sort_by(|a, b| a.code_entropy_bits.total_cmp(&b.code_entropy_bits)),
    }
    if let Some(path) = picture {
        plot::classes(&classes, path)?;
    }
    if global.json {
        return print_json(&json!({ "classes": classes, "unlabelled_rows": stats.unlabelled_rows }));
    }
    let mut table = Table::new(&["#label", "name", "#rows", "#codes", "#entropy (bits per token)"]);
    for ClassRows { label, name, rows, distinct_codes, code_entropy_bits, .. } in &classes {
        let name = name.clone().unwrap_or_default();
        let numbers = [rows.to_string(), distinct_codes.to_string(), format!("{code_entropy_bits:.2}")];
        table.push([label.to_string(), name].into_iter().chain(numbers).collect());
    }
    table.print();
    if stats.unlabelled_rows > 0 {
        println!("{} without a class", counted(stats.unlabelled_rows as usize, "row"));
    }
    if let Some(path) = picture {
        println!("picture: {}", path.display());
    }
    Ok(())
}

pub(super) fn diff(a: &Path, b: &Path, limit: usize, global: &Global) -> anyhow::Result<()> {
    let caches = [TokenCache::open(a)?, TokenCache::open(b)?];
    let mut meter = Meter::new(global, "images");
    let found =
        tokengrid_cache::diff([&caches[0], &caches[1]], limit, &mut |done, total| meter.update(done, total, ""))?;
    drop(meter);
    if global.json {
        print_json(&found)?;
    } else {
        print_diff(&found);
    }
    if found.same {
        return Ok(());
    }
    Err(CheckFailed(format!("{} and {} hold different rows", a.display(), b.display())).into())
}

fn print_diff(found: &CacheDiff) {
    for (field, a, b) in &found.manifests {
        // A list of 1000 class names would not be readable.
        let [a, b] = shortened_apart(&a.to_string(), &b.to_string(), 80);
        println!("{field}: {a} | {b}");
    }
    let [only_a, only_b] = found.only_in;
    println!("{} rows in both, {only_a} only in the first, {only_b} only in the second", found.common_rows);
    for (which, keys) in ["first", "second"].iter().zip(&found.only_keys) {
        keys.iter().for_each(|key| println!("  only in the {which}: {}", key.escape_debug()));
    }
    println!(
        "of those in both, {} have another label, {} another crop, {} other tokens",
        found.labels_differ, found.crops_differ, found.tokens_differ
    );
    if found.bits > 0 {
        let share = |equal: u64, all: u64| 100.0 * equal as f64 / all as f64;
        let (tokens, bits) = (share(found.equal_tokens, found.tokens), share(found.equal_bits, found.bits));
        println!("{tokens:.4} % of the tokens agree, {bits:.4} % of the bits");
    }
    if found.listed.is_empty() {
        return;
    }
    let mut table = Table::new(&["#row", "#row", "key", "#view", "labels", "crops", "#tokens", "#bits"]);
    for row in &found.listed {
        let labels = row.labels.map(|[a, b]| format!("{a} | {b}")).unwrap_or_default();
        let crop = |(x, y, flip): (i32, i32, bool)| format!("{x},{y}{}", if flip { " mirrored" } else { "" });
        let crops = row.crops.map(|[a, b]| format!("{} | {}", crop(a), crop(b))).unwrap_or_default();
        let [a, b] = row.rows.map(|row| row.to_string());
        let (view, tokens, bits) = (row.view.to_string(), row.unequal_tokens.to_string(), row.unequal_bits.to_string());
        table.push(vec![a, b, row.key.clone(), view, labels, crops, tokens, bits]);
    }
    table.print();
}
