//! `manifest.json`: what a finished cache is made of. It is written last, by rename, and signs itself.

use crate::error::CacheError;
use crate::files::small::{is_missing, read_at_most};
use crate::format::grid::GridSpec;
use crate::format::hash::{ContentSum, blake3_hex};
use crate::format::identity::{JobIdentity, SourceInfo, TokenizerInfo, is_zero};
use crate::format::job::JobSpec;
use crate::format::job_file::MANIFEST_BYTES_MAX;
use crate::format::margins::Margins;
use crate::format::names::MANIFEST_FILE;
use crate::format::schema::{FORMAT, FORMAT_VERSION, MoreColumns};
use crate::format::signature::{check_signature, field_error};
use crate::format::split::Split;
use crate::remote::staged::read_manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use tokengrid_store::{Bucket, Place};

/// A finished cache, as its `manifest.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// Always `tokengrid-cache`.
    pub format: String,
    /// Version of the format, 1 ..= [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Id of the job (BLAKE3 of its description); every shard carries it.
    pub job: String,
    /// Shape of every grid, `16x16`: height x width.
    pub grid: String,
    /// Width of a token, in bits.
    pub bits: u32,
    /// Rows of the cache: `images * views`.
    pub rows: usize,
    /// Images with rows: the source's images less those in quarantine.
    pub images: usize,
    /// Views (rows) of every image.
    pub views: u32,
    /// The first view of every image; not 0 only where a cache holds what another one lacks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_view: u32,
    /// Who made the tokens.
    pub tokenizer: TokenizerInfo,
    /// Size, views, seed, orientation policy.
    pub recipe: Value,
    /// Where the images came from.
    pub source: SourceInfo,
    /// Class names (wnids) by index.
    pub classes: Vec<String>,
    /// Named parts of the source's images, in order; empty for a cache that is one whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<Split>,
    /// The shards in row order.
    pub shards: Vec<ShardEntry>,
    /// The list of inputs without rows.
    pub quarantine: QuarantineEntry,
    /// Hash over the set of rows (key, view, label, crop, flip, tokens), whatever their order: 64 hex digits.
    pub content_hash: String,
    /// BLAKE3 of the file with these 64 digits as zeros. Computed when the manifest is written.
    #[serde(default, skip_serializing)]
    pub checksum: String,
}

/// One shard of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// File name in the cache's folder.
    pub file: String,
    /// Rows of the shard.
    pub rows: usize,
    /// Source images that the shard covers (encoded or quarantined): `[start, end]`, end excluded.
    pub images: [usize; 2],
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// The shard's share of the content hash; the shares add up to it.
    pub content_sum: String,
    /// Columns of the file beside those of every shard: `split` in a cache with splits, unless an earlier version wrote the
    /// shard; `segment` and `frame` in one of video frames. A shard whose footer is lost is made again with just these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_columns: Vec<String>,
    /// Counts of |h| over the shard's bits; empty where the tokenizer did not count them.
    #[serde(default, skip_serializing_if = "Margins::is_empty")]
    pub margins: Margins,
    /// Row groups in file order; with `footer` they cover the file without gap.
    pub row_groups: Vec<GroupEntry>,
    /// Page index and Parquet footer: everything after the last row group.
    pub footer: ByteRange,
}

/// One row group of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Rows of the group.
    pub rows: usize,
    /// Source images that the group covers: `[start, end]`, end excluded.
    pub images: [usize; 2],
    /// The group's bytes in the file (the first one includes the leading magic).
    #[serde(flatten)]
    pub range: ByteRange,
}

/// A checked range of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the range.
    pub blake3: String,
}

/// The quarantine list of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Inputs in quarantine: lines of the file.
    pub images: usize,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
}

impl Manifest {
    /// Shape of every grid.
    pub fn grid_spec(&self) -> GridSpec {
        // The text was parsed when the manifest was read; a manifest that was built by hand has the zero grid.
        GridSpec::parse(&self.grid, self.bits).unwrap_or(GridSpec { height: 0, width: 0, bits: self.bits })
    }

    /// Counts of |h| over the bits of all shards that have any.
    pub fn margins(&self) -> Margins {
        let mut margins = Margins::default();
        self.shards.iter().for_each(|shard| margins.add(&shard.margins));
        margins
    }

    /// The rows of a split of this cache.
    pub fn split_rows(&self, split: &Split) -> Range<usize> {
        let groups = || self.shards.iter().flat_map(|shard| &shard.row_groups);
        // Row groups keep to one split, and images in quarantine have no rows.
        let rows_below =
            |end: usize| groups().filter(|group| group.images[1] <= end).map(|group| group.rows).sum::<usize>();
        rows_below(split.images[0])..rows_below(split.images[1])
    }

    /// The images of a split, by their places in the cache; `None` when there is no split of that name.
    pub fn split_images(&self, name: &str) -> Option<Range<usize>> {
        Some(self.images_of(self.splits.iter().find(|split| split.name == name)?))
    }

    /// The images with rows of a split of this cache, by their numbers among all images with rows.
    fn images_of(&self, split: &Split) -> Range<usize> {
        let (rows, views) = (self.split_rows(split), self.views.max(1) as usize);
        rows.start / views..rows.end / views
    }

    /// The splits in order, with the images of each.
    pub(crate) fn splits_by_images(&self) -> Vec<(&str, Range<usize>)> {
        self.splits.iter().map(|split| (split.name.as_str(), self.images_of(split))).collect()
    }

    /// The images of a shard, by its place; none where there is no such shard.
    pub(crate) fn shard_images(&self, shard: usize) -> Range<usize> {
        let images =
            |shards: &[ShardEntry]| shards.iter().map(|shard| shard.rows).sum::<usize>() / self.views.max(1) as usize;
        let shards = &self.shards;
        images(&shards[..shard.min(shards.len())])..images(&shards[..shard.saturating_add(1).min(shards.len())])
    }

    /// Reads and checks the manifest of the cache in `dir`, a folder or a URL: version, checksum, and that its parts fit each other.
    ///
    /// # Errors
    /// [`CacheError::NotACache`] and [`CacheError::Unfinished`] where there is none; [`CacheError::NewerVersion`],
    /// [`CacheError::ManifestSyntax`], [`CacheError::ManifestChecksum`] and [`CacheError::ManifestField`] where it
    /// cannot be used.
    pub fn read(dir: &Path) -> Result<Manifest, CacheError> {
        if let Some(place) = Place::parse(dir)? {
            return read_manifest(dir, &place, &Bucket::of(&place)?).map(|(manifest, _)| manifest);
        }
        let path = dir.join(MANIFEST_FILE);
        let text = match read_at_most(&path, MANIFEST_BYTES_MAX) {
            Err(error) if is_missing(&error) => return Err(crate::format::job_file::no_manifest(dir)),
            other => other?,
        };
        Self::parse(&path, &text)
    }

    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Manifest, CacheError> {
        let syntax = |source| CacheError::ManifestSyntax { path: path.into(), source };
        // The version comes before everything else: a newer manifest may look different in all other respects.
        let loose: Loose = serde_json::from_slice(text).map_err(syntax)?;
        if loose.format != FORMAT {
            return Err(field_error(path, "format", format!("{FORMAT:?}"), loose.format.to_string()));
        }
        match loose.format_version.as_u64() {
            Some(found) if found > u64::from(FORMAT_VERSION) => {
                return Err(CacheError::NewerVersion { path: path.into(), found, supported: FORMAT_VERSION });
            }
            Some(1..) => {}
            _ => {
                let actual = loose.format_version.to_string();
                return Err(field_error(path, "format_version", format!("1 to {FORMAT_VERSION}"), actual));
            }
        }
        check_signature(path, text)?;
        let manifest: Manifest = serde_json::from_slice(text).map_err(syntax)?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// The file: pretty JSON, the checksum as its last field.
    pub(crate) fn to_text(&self, path: &Path) -> Result<String, CacheError> {
        let syntax = |source| CacheError::ManifestSyntax { path: path.into(), source };
        let body = serde_json::to_string_pretty(self).map_err(syntax)?;
        let body = body.strip_suffix("\n}").unwrap_or(&body);
        let signed_with = |digits: &str| format!("{body},\n  \"checksum\": \"{digits}\"\n}}\n");
        Ok(signed_with(&blake3_hex(signed_with(&"0".repeat(64)).as_bytes())))
    }

    pub(crate) fn identity(&self) -> JobIdentity {
        JobIdentity {
            grid: self.grid.clone(),
            bits: self.bits,
            views: self.views,
            first_view: self.first_view,
            tokenizer: self.tokenizer.clone(),
            recipe: self.recipe.clone(),
            source: self.source.clone(),
            classes: self.classes.clone(),
            splits: self.splits.clone(),
        }
    }
}

impl ShardEntry {
    /// The columns, of those that this version knows, that the shard has beside those of every shard.
    pub(crate) fn more_columns(&self) -> MoreColumns {
        MoreColumns::of(self.more_columns.iter().map(String::as_str))
    }
}

/// What every version of a manifest has; the rest is skipped, not kept.
#[derive(Deserialize)]
struct Loose {
    #[serde(default)]
    format: Value,
    #[serde(default)]
    format_version: Value,
}

impl JobSpec {
    /// The job of a finished cache, as a single rank with the usual layout.
    ///
    /// # Errors
    /// [`CacheError::InvalidGrid`] for a grid out of range, which no program of this crate writes.
    pub fn of(manifest: &Manifest) -> Result<JobSpec, CacheError> {
        JobSpec::from_identity(manifest.identity())
    }
}

/// The manifest of a cache of these shards and this quarantine list.
pub(crate) fn manifest_of(identity: JobIdentity, shards: Vec<ShardEntry>, quarantined: usize, list: &str) -> Manifest {
    let mut content = ContentSum::default();
    for sum in shards.iter().filter_map(|shard| ContentSum::from_hex(&shard.content_sum)) {
        content.add(sum);
    }
    let rows = shards.iter().map(|shard| shard.rows).sum();
    Manifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        job: identity.id(),
        grid: identity.grid,
        bits: identity.bits,
        rows,
        images: rows / identity.views as usize,
        views: identity.views,
        first_view: identity.first_view,
        tokenizer: identity.tokenizer,
        recipe: identity.recipe,
        source: identity.source,
        classes: identity.classes,
        splits: identity.splits,
        shards,
        quarantine: QuarantineEntry {
            images: quarantined,
            bytes: list.len() as u64,
            blake3: blake3_hex(list.as_bytes()),
        },
        content_hash: content.to_hex(),
        checksum: String::new(),
    }
}
