//! A cache as WebDataset shards.

use crate::error::{CacheError, io_error};
use crate::export::folder::{ExportFolder, Output};
use crate::export::tar_writer::{put_end, put_file};
use crate::files::token_samples::SampleInfo;
use crate::format::row::Row;
use crate::npy::Header;
use crate::progress::copied;
use crate::read::cache::TokenCache;
use crate::write::writer::OpenMode;
use std::ops::Range;
use std::path::Path;

/// What shards are called where there are no splits.
const SHARDS: &str = "tokens";

/// A shard to be written.
struct Shard<'a> {
    file: String,
    images: Range<usize>,
    split: &'a str,
}

/// Writes a WebDataset sample per row: `<name>.tokens.npy` (int32, `[H, W]`), `<name>.cls` where it has a class, and
/// `<name>.json` with key, view, crop, grid and split, from which [`crate::import_webdataset`] makes the same cache again. The name is
/// the key with `%2E` for a dot, since names end at their first dot; in caches of several views `-v<view>` follows. Shards are called
/// `tokens-000000.tar`, or as their split is, and have up to `shard_rows` rows (whole images, at least one). An export that was
/// interrupted goes on with the shards that are missing. Returns the names.
///
/// # Errors
/// As [`crate::export_npy`].
pub fn export_webdataset(
    cache: &TokenCache,
    shard_rows: usize,
    out: &Path,
    mode: OpenMode,
) -> Result<Vec<String>, CacheError> {
    let shard_images = (shard_rows / cache.num_views()).max(1);
    let shards = shards_of(cache, shard_images);
    let names: Vec<String> = shards.iter().map(|shard| shard.file.clone()).collect();
    let mut folder = ExportFolder::open(out, &names.iter().map(String::as_str).collect::<Vec<_>>(), mode)?;
    let what = format!("webdataset, {shard_images} images per shard, of {}", cache.content_hash());
    let whole = folder.resume(&what, mode)?;
    for Shard { file, images, split } in shards.into_iter().filter(|shard| !whole.contains(&shard.file)) {
        let mut output = folder.create(&file)?;
        let mut buffer = Vec::new();
        cache.visit_images(images, &|_| true, &mut |image, rows| {
            copied(image + 1, cache.num_images());
            rows.iter().try_for_each(|row| put_row(&mut output, cache, row, split, &mut buffer))
        })?;
        put_end(&mut output)?;
        folder.publish_one(output)?;
    }
    Ok(names)
}

fn shards_of(cache: &TokenCache, shard_images: usize) -> Vec<Shard<'_>> {
    let whole = || vec![("", 0..cache.num_images())];
    let parts = if cache.manifest().splits.is_empty() { whole() } else { cache.splits() };
    let mut shards = Vec::new();
    for (split, images) in parts {
        let name = if split.is_empty() { SHARDS.to_owned() } else { escaped(split).replace('/', "%2F") };
        for (number, start) in images.clone().step_by(shard_images).enumerate() {
            let images = start..(start + shard_images).min(images.end);
            shards.push(Shard { file: format!("{name}-{number:06}.tar"), images, split });
        }
    }
    shards
}

/// A relative name without dots; others stay apart.
fn escaped(name: &str) -> String {
    let name = name.replace('%', "%25").replace('.', "%2E");
    name.strip_prefix('/').map_or(name.clone(), |rest| format!("%2F{rest}"))
}

fn put_row(
    output: &mut Output,
    cache: &TokenCache,
    row: &Row<'_>,
    split: &str,
    buffer: &mut Vec<u8>,
) -> Result<(), CacheError> {
    let grid = cache.grid();
    let view = if cache.num_views() == 1 { String::new() } else { format!("-v{}", row.view) };
    let name = format!("{}{view}", escaped(row.key));
    buffer.clear();
    let shape = [grid.height as usize, grid.width as usize];
    Header::write(buffer, "<i4", &shape).map_err(io_error("write", output.path()))?;
    row.tokens.iter().for_each(|token| buffer.extend_from_slice(&token.to_le_bytes()));
    put_file(output, &format!("{name}.tokens.npy"), buffer)?;
    if row.label >= 0 {
        put_file(output, &format!("{name}.cls"), row.label.to_string().as_bytes())?;
    }
    let info = SampleInfo::of(row, grid, split);
    let text = serde_json::to_vec(&info).expect("numbers and texts by name");
    put_file(output, &format!("{name}.json"), &text)
}
