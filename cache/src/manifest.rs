//! `manifest.json`: what a finished cache is made of. It is written last, by rename, and signs itself.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CacheError;
use crate::fsio::{is_missing, read_at_most};
use crate::grid::GridSpec;
use crate::group::shown;
use crate::hash::{ContentSum, blake3_hex};
use crate::job::{JobIdentity, SourceInfo, Split, TokenizerInfo, check_splits, is_zero, split_of};
use crate::margins::Margins;
use crate::schema::{FORMAT_VERSION, SPLIT};

/// Name of the manifest in a cache's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the list of quarantined inputs in a cache's folder.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";

/// The `format` of every manifest.
pub(crate) const FORMAT: &str = "tokengrid-cache";

/// A bound on what is read into memory: some 300,000 row groups.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

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
    /// Size of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// The shard's share of the content hash; the shares add up to it.
    pub content_sum: String,
    /// Columns of the file beside those of every shard: `split` in a cache with splits, unless an earlier version wrote the
    /// shard. A shard whose footer is lost is made again with just these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_columns: Vec<String>,
    /// Counts of |h| over the shard's bits; empty where whoever made the tokens did not say.
    #[serde(default, skip_serializing_if = "Margins::is_empty")]
    pub margins: Margins,
    /// Row groups in file order; with `footer` they cover the file without gap.
    pub row_groups: Vec<GroupEntry>,
    /// Page index and Parquet footer: everything behind the last row group.
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
    /// First byte.
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
    /// Size of the file.
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

    /// Reads and checks the manifest of the cache in `dir`: version, checksum, and that its parts fit each other.
    ///
    /// # Errors
    /// [`CacheError::NotACache`] and [`CacheError::Unfinished`] where there is none; [`CacheError::NewerVersion`],
    /// [`CacheError::ManifestSyntax`], [`CacheError::ManifestChecksum`] and [`CacheError::ManifestField`] where it
    /// cannot be used.
    pub fn read(dir: &Path) -> Result<Manifest, CacheError> {
        let path = dir.join(MANIFEST_FILE);
        let text = match read_at_most(&path, MANIFEST_BYTES_MAX) {
            Err(error) if is_missing(&error) => return Err(crate::writer::no_manifest(dir)),
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

    /// Checks that the parts fit each other, so that later code may rely on them.
    fn check(&self, path: &Path) -> Result<(), CacheError> {
        GridSpec::parse(&self.grid, self.bits)
            .map_err(|_| field_error(path, "grid", "HEIGHTxWIDTH within bounds".into(), self.grid.clone()))?;
        let expect = |field, expected: usize, actual: usize| {
            if expected == actual {
                return Ok(());
            }
            Err(field_error(path, field, expected.to_string(), actual.to_string()))
        };
        if self.views == 0 {
            return Err(field_error(path, "views", "at least 1".into(), "0".into()));
        }
        expect("rows", self.images.saturating_mul(self.views as usize), self.rows)?;
        expect("source.images", self.images.saturating_add(self.quarantine.images), self.source.images)?;
        check_splits(&self.splits, self.source.images)
            .map_err(|actual| field_error(path, "splits", "named ranges that tile the images".into(), actual))?;
        let mut names = BTreeSet::new();
        let (mut rows, mut next_image, mut content) = (0usize, 0, ContentSum::default());
        for shard in &self.shards {
            shard.check(path)?;
            self.check_groups_in_splits(path, shard)?;
            if !names.insert(&shard.file) {
                return Err(field_error(path, "shards.file", "each shard once".into(), shard.file.clone()));
            }
            expect("shards.images", next_image, shard.images[0])?;
            next_image = shard.images[1];
            rows = rows.saturating_add(shard.rows);
            content.add(ContentSum::from_hex(&shard.content_sum).unwrap_or_default());
        }
        expect("shards.images", self.source.images, next_image)?;
        expect("rows", rows, self.rows)?;
        let job = self.identity().id();
        if job != self.job {
            return Err(field_error(path, "job", job, self.job.clone()));
        }
        if content.to_hex() != self.content_hash {
            return Err(field_error(path, "content_hash", content.to_hex(), self.content_hash.clone()));
        }
        Ok(())
    }

    fn check_groups_in_splits(&self, path: &Path, shard: &ShardEntry) -> Result<(), CacheError> {
        let straddles = |group: &&GroupEntry| {
            let [start, end] = group.images;
            start >= end || split_of(&self.splits, start) != split_of(&self.splits, end - 1)
        };
        match shard.row_groups.iter().find(straddles) {
            None => Ok(()),
            Some(group) => {
                let expected = format!("images of one split ({})", shard.file);
                Err(field_error(path, "shards.row_groups.images", expected, format!("{:?}", group.images)))
            }
        }
    }
}

impl ShardEntry {
    /// Whether the rows name their split.
    pub(crate) fn has_split_column(&self) -> bool {
        self.more_columns.iter().any(|column| column == SPLIT)
    }

    fn check(&self, path: &Path) -> Result<(), CacheError> {
        let fail = |field, expected: &str, actual: String| {
            Err(field_error(path, field, format!("{expected} ({})", self.file), actual))
        };
        if crate::writer::parse_shard_name(&self.file).is_none() {
            return fail("shards.file", "shard-<rank>-<number>.parquet", format!("{:?}", self.file));
        }
        if ContentSum::from_hex(&self.content_sum).is_none() {
            return fail("shards.content_sum", "64 hex digits", format!("{:?}", self.content_sum));
        }
        if self.images[0] > self.images[1] {
            return fail("shards.images", "[start, end]", format!("{:?}", self.images));
        }
        let mut next = 0u64;
        let mut rows = 0usize;
        for range in self.row_groups.iter().map(|group| &group.range).chain([&self.footer]) {
            if range.offset != next {
                return fail("shards.row_groups.offset", &next.to_string(), range.offset.to_string());
            }
            next = next.saturating_add(range.bytes);
        }
        for group in &self.row_groups {
            rows = rows.saturating_add(group.rows);
        }
        if next != self.bytes {
            return fail("shards.bytes", &next.to_string(), self.bytes.to_string());
        }
        if rows != self.rows {
            return fail("shards.rows", &rows.to_string(), self.rows.to_string());
        }
        Ok(())
    }
}

fn field_error(path: &Path, field: &'static str, expected: String, actual: String) -> CacheError {
    let [expected, actual] = [expected, actual].map(|text| shown(&text));
    CacheError::ManifestField { path: path.into(), field, expected, actual }
}

/// What every version of a manifest has; the rest is skipped, not kept.
#[derive(Deserialize)]
struct Loose {
    #[serde(default)]
    format: Value,
    #[serde(default)]
    format_version: Value,
}

/// The text must end in `"checksum": "<64 hex digits>"\n}\n`, and the digits be the hash of the text with zeros there.
/// So every byte of the file counts, blanks included.
fn check_signature(path: &Path, text: &[u8]) -> Result<(), CacheError> {
    const PREFIX: &[u8] = b"\"checksum\": \"";
    const SUFFIX: &[u8] = b"\"\n}\n";
    let digits_end = text.len().checked_sub(SUFFIX.len()).filter(|end| &text[*end..] == SUFFIX);
    let digits = digits_end.and_then(|end| Some(end.checked_sub(64)?..end));
    let Some(digits) = digits.filter(|digits| text[..digits.start].ends_with(PREFIX)) else {
        return Err(field_error(path, "checksum", "the last field, laid out as written".into(), "elsewhere".into()));
    };
    let actual = String::from_utf8_lossy(&text[digits.clone()]).into_owned();
    let mut unsigned = text.to_vec();
    unsigned[digits].fill(b'0');
    let expected = blake3_hex(&unsigned);
    if actual == expected { Ok(()) } else { Err(CacheError::ManifestChecksum { path: path.into(), expected, actual }) }
}
