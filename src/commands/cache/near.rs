//! Rows that are like others: `cache find --near`, `cache leak`.

use super::made_by::UNKNOWN_TOKENIZER;
use super::rows::{Splits, crop, entry, metas_of};
use super::table::Table;
use crate::args::{FindArgs, Global, LeakArgs};
use crate::exit::{CheckFailed, Usage};
use crate::printable;
use crate::terminal::{Meter, counted, print_json};
use serde_json::json;
use tokengrid_cache::{LeakPair, NearRows, RowReader, TokenCache, near_rows};

/// Without `--distance`, one bit in so many may differ.
const BITS_PER_DIFFERENCE: usize = 23;

/// Whether the rows are those near an image, which is encoded.
pub(crate) fn needs_torch(args: &FindArgs) -> bool {
    args.near.as_ref().is_some_and(|near| near.parse::<usize>().is_err())
}

pub(super) fn find(args: &FindArgs, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(&args.dir)?;
    let near = args.near.as_deref().unwrap_or_default();
    let Ok(row) = near.parse::<usize>() else {
        return crate::torch::find_near_image(&cache, args, global);
    };
    if row >= cache.num_rows() {
        let (dir, rows) = (args.dir.display(), cache.num_rows());
        return Err(Usage(format!("--near {row}: {dir} has {rows} rows, counted from 0")).into());
    }
    let mut packed = Vec::new();
    cache.read_packed(row..row + 1, &mut packed)?;
    print_near(&cache, &[&packed], args, global)
}

/// Prints the rows near one of `queries`, which are packed grids.
pub(crate) fn print_near(
    cache: &TokenCache,
    queries: &[&[u8]],
    args: &FindArgs,
    global: &Global,
) -> anyhow::Result<()> {
    let distance = distance(args.distance, cache);
    let mut meter = Meter::new(global, "rows");
    let mut progress = |done, total| meter.update(done, total, "");
    let found = near_rows(cache, queries, distance, args.limit, global.threads.map(usize::from), &mut progress)?;
    drop(meter);
    let rows: Vec<usize> = found.rows.iter().map(|near| near.row).collect();
    let reader = RowReader::open(cache.dir())?;
    let metas = metas_of(&reader, &rows)?;
    let splits = Splits::of(&reader);
    if global.json {
        let listed = found.rows.iter().zip(&metas).map(|(near, meta)| {
            let mut object = entry(&reader, &splits, near.row, meta);
            object["distance"] = json!(near.distance);
            object
        });
        let listed: Vec<_> = listed.collect();
        return print_json(&json!({ "near": args.near, "distance": distance, "found": found.found, "rows": listed }));
    }
    let mut table = Table::new(&["#distance", "#row", "key", "#label", "#view", "crop"]);
    for (near, meta) in found.rows.iter().zip(&metas) {
        let (distance, row, view) = (near.distance.to_string(), near.row.to_string(), meta.view.to_string());
        table.push(vec![distance, row, meta.key.clone(), meta.label.to_string(), view, crop(meta)]);
    }
    table.print();
    let rows = counted(found.found as usize, "row");
    println!("{rows} with at most {distance} bits of {} different{}", bits(cache), unlisted(rows_left(&found)));
    Ok(())
}

fn rows_left(found: &NearRows) -> u64 {
    found.found - found.rows.len() as u64
}

fn unlisted(left: u64) -> String {
    if left == 0 { String::new() } else { format!("; {left} are not listed: --limit N lists more") }
}

/// Refuses a cache whose tokenizer was not named when it was imported, beside one of a known tokenizer: whether their tokens mean
/// the same cannot be told.
fn refuse_unknown(a: &TokenCache, b: &TokenCache) -> anyhow::Result<()> {
    let fingerprint = |cache: &TokenCache| cache.manifest().tokenizer.fingerprint.clone();
    for (unknown, known) in [(a, b), (b, a)] {
        let hash = fingerprint(known);
        if fingerprint(unknown) == UNKNOWN_TOKENIZER && hash != UNKNOWN_TOKENIZER {
            let (unknown, known) = (unknown.dir().display(), known.dir().display());
            let text = format!(
                "{unknown} does not say which tokenizer made its tokens: if it is that of {known}, import them again with --like \
                 {known}, --tokenizer WEIGHTS or --tokenizer-hash {hash}"
            );
            return Err(CheckFailed(text).into());
        }
    }
    Ok(())
}

pub(super) fn leak(args: &LeakArgs, global: &Global) -> anyhow::Result<()> {
    let (train, val) = (TokenCache::open(&args.train)?, TokenCache::open(&args.val)?);
    refuse_unknown(&train, &val)?;
    let distance = distance(args.distance, &val);
    let mut meter = Meter::new(global, "rows");
    let mut progress = |done, total| meter.update(done, total, "");
    let threads = global.threads.map(usize::from);
    let found = tokengrid_cache::leak(&train, &val, distance, args.limit, threads, &mut progress)?;
    drop(meter);
    let rows_of = |row: fn(&LeakPair) -> usize| found.listed.iter().map(row).collect::<Vec<_>>();
    let metas = metas_of(&RowReader::open(&args.val)?, &rows_of(|pair| pair.row))?;
    let train_metas = metas_of(&RowReader::open(&args.train)?, &rows_of(|pair| pair.train_row))?;
    let pairs = found.listed.iter().zip(metas.iter().zip(&train_metas));
    if global.json {
        let listed: Vec<_> = pairs
            .map(|(pair, (meta, train_meta))| {
                json!({
                    "distance": pair.distance, "row": pair.row, "key": meta.key, "label": meta.label, "view": meta.view,
                    "train_row": pair.train_row, "train_key": train_meta.key, "train_label": train_meta.label,
                    "train_view": train_meta.view,
                })
            })
            .collect();
        return print_json(&json!({
            "distance": distance, "pairs": found.pairs, "rows": found.rows, "rows_compared": val.num_rows(),
            "train_rows": train.num_rows(), "method": found.method, "listed": listed,
        }));
    }
    let mut table = Table::new(&["#distance", "#row", "key", "#train row", "train key"]);
    for (pair, (meta, train_meta)) in pairs {
        let (distance, row, train_row) = (pair.distance.to_string(), pair.row.to_string(), pair.train_row.to_string());
        table.push(vec![distance, row, meta.key.clone(), train_row, train_meta.key.clone()]);
    }
    if !found.listed.is_empty() {
        table.print();
    }
    let [of_val, of_train] = [&args.val, &args.train].map(|dir| printable::line(&dir.to_string_lossy()).into_owned());
    println!(
        "{} of the {} of {of_val} differ in at most {distance} bits of {} from a row of {of_train}: {}{}",
        found.rows,
        counted(val.num_rows(), "row"),
        bits(&val),
        counted(found.pairs as usize, "pair"),
        unlisted(found.pairs - found.listed.len() as u64)
    );
    Ok(())
}

fn bits(cache: &TokenCache) -> usize {
    cache.grid().num_tokens() * cache.grid().bits as usize
}

fn distance(typed: Option<u32>, cache: &TokenCache) -> u32 {
    typed.unwrap_or((bits(cache) / BITS_PER_DIFFERENCE) as u32)
}
