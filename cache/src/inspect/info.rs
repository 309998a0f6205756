//! A summary of a cache, for users and scripts.

use crate::error::CacheError;
use crate::format::identity::{SourceInfo, TokenizerInfo};
use crate::format::manifest::Manifest;
use crate::format::margins::Margins;
use crate::format::names::{MANIFEST_FILE, QUARANTINE_FILE};
use crate::format::split::Split;
use crate::remote::staged::file_bytes;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// A summary of a cache, as `cache info --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CacheInfo {
    /// Version of the format.
    pub format_version: u32,
    /// Rows: `images * views`.
    pub rows: usize,
    /// Images with rows.
    pub images: usize,
    /// Inputs that could not be decoded.
    pub quarantined: usize,
    /// Views of every image.
    pub views: u32,
    /// Height and width of a grid, in tokens.
    pub grid: [u32; 2],
    /// Width of a token, in bits.
    pub bits: u32,
    /// Bytes of the whole cache: shards, manifest, quarantine list.
    pub bytes: u64,
    /// `bytes / rows`; 0 for a cache without rows.
    pub bytes_per_row: f64,
    /// Hash over the set of rows.
    pub content_hash: String,
    /// Counts of |h| over the bits, in the bins of [`MARGIN_EDGES`](crate::MARGIN_EDGES): how many another device could have
    /// rounded the other way. Empty where the tokenizer did not count them.
    pub margins: Margins,
    /// Who made the tokens.
    pub tokenizer: TokenizerInfo,
    /// Size, views, seed, orientation policy.
    pub recipe: Value,
    /// Where the images came from.
    pub source: SourceInfo,
    /// Number of class names.
    pub classes: usize,
    /// Named parts of the images, in row order; empty for a cache that is one whole.
    pub splits: Vec<SplitInfo>,
    /// The shards in row order.
    pub shards: Vec<ShardInfo>,
}

/// One split of a [`CacheInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SplitInfo {
    /// Its name.
    pub name: String,
    /// Images with rows.
    pub images: usize,
    /// Rows.
    pub rows: usize,
    /// Its first row; the others follow.
    pub first_row: usize,
}

/// One shard of a [`CacheInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShardInfo {
    /// File name.
    pub file: String,
    /// Rows.
    pub rows: usize,
    /// Row groups.
    pub row_groups: usize,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
}

/// Summarizes the cache in `dir`, a folder or a URL, from its manifest alone.
///
/// # Errors
/// As [`Manifest::read`].
pub fn inspect(dir: &Path) -> Result<CacheInfo, CacheError> {
    let manifest = Manifest::read(dir)?;
    let shard_bytes: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    let bytes = shard_bytes + file_bytes(dir, MANIFEST_FILE) + file_bytes(dir, QUARANTINE_FILE);
    let grid = manifest.grid_spec();
    let shard_info = |shard: &crate::format::manifest::ShardEntry| ShardInfo {
        file: shard.file.clone(),
        rows: shard.rows,
        row_groups: shard.row_groups.len(),
        bytes: shard.bytes,
        blake3: shard.blake3.clone(),
    };
    let split_info = |split: &Split| {
        let rows = manifest.split_rows(split);
        let images = rows.len() / manifest.views as usize;
        SplitInfo { name: split.name.clone(), images, rows: rows.len(), first_row: rows.start }
    };
    Ok(CacheInfo {
        splits: manifest.splits.iter().map(split_info).collect(),
        format_version: manifest.format_version,
        rows: manifest.rows,
        images: manifest.images,
        quarantined: manifest.quarantine.images,
        views: manifest.views,
        grid: [grid.height, grid.width],
        bits: grid.bits,
        bytes,
        bytes_per_row: if manifest.rows == 0 { 0.0 } else { bytes as f64 / manifest.rows as f64 },
        margins: manifest.margins(),
        content_hash: manifest.content_hash,
        tokenizer: manifest.tokenizer,
        recipe: manifest.recipe,
        source: manifest.source,
        classes: manifest.classes.len(),
        shards: manifest.shards.iter().map(shard_info).collect(),
    })
}
