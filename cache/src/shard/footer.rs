//! What a shard says about itself: the `tokengrid.*` entries of its Parquet footer.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::hash::ContentSum;
use crate::format::identity::JobIdentity;
use crate::format::margins::Margins;
use crate::format::quarantine::QuarantineRecord;
use crate::format::schema::{FORMAT_VERSION, keys};
use crate::format::text::shown;
use parquet::file::metadata::{FileMetaData, KeyValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The entries that differ from shard to shard, and those that must fit the cache.
#[derive(Debug)]
pub(crate) struct ShardFooter {
    pub(crate) grid: GridSpec,
    pub(crate) views: u32,
    pub(crate) job: String,
    /// Images that the shard covers, `[start, end]`, end excluded.
    pub(crate) images: [usize; 2],
    pub(crate) quarantined: Vec<QuarantineRecord>,
    pub(crate) row_groups: Vec<GroupFooter>,
    pub(crate) content: ContentSum,
    /// Empty where nothing was counted, and then not in the file.
    pub(crate) margins: Margins,
}

/// One row group, as its shard's footer describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupFooter {
    pub(crate) rows: usize,
    /// Images that the group covers, `[start, end]`, end excluded.
    pub(crate) images: [usize; 2],
    /// Where the first grid begins in the file: row r is at `tokens_offset + r * row_bytes`.
    pub(crate) tokens_offset: u64,
    /// BLAKE3 by column: of the grids' bytes for `tokens`, of the whole column chunk for the others.
    pub(crate) blake3: BTreeMap<String, String>,
}

impl ShardFooter {
    /// The key-value metadata of a shard.
    pub(crate) fn to_key_values(&self, identity: &JobIdentity) -> Vec<KeyValue> {
        let entries = [
            (keys::FORMAT_VERSION, FORMAT_VERSION.to_string()),
            (keys::GRID, identity.grid.clone()),
            (keys::BITS, identity.bits.to_string()),
            (keys::VIEWS, identity.views.to_string()),
            (keys::TOKENIZER, to_json(&identity.tokenizer)),
            (keys::RECIPE, to_json(&identity.recipe)),
            (keys::FIRST_VIEW, identity.first_view.to_string()),
            (keys::SOURCE, to_json(&identity.source)),
            (keys::CLASSES, to_json(&identity.classes)),
            (keys::SPLITS, to_json(&identity.splits)),
            (keys::JOB, self.job.clone()),
            (keys::IMAGES, to_json(&self.images)),
            (keys::QUARANTINED, to_json(&self.quarantined)),
            (keys::ROW_GROUPS, to_json(&self.row_groups)),
            (keys::CONTENT_SUM, self.content.to_hex()),
        ];
        let margins = (!self.margins.is_empty()).then(|| (keys::MARGINS, to_json(&self.margins)));
        entries.into_iter().chain(margins).map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
    }

    /// Reads and checks the metadata of the shard at `path`.
    ///
    /// # Errors
    /// [`CacheError::NewerVersion`], or [`CacheError::ShardMetadata`] naming the entry.
    pub(crate) fn parse(path: &Path, file: &FileMetaData) -> Result<ShardFooter, CacheError> {
        let entries = Entries { path, file };
        let version: u64 = entries.parsed(keys::FORMAT_VERSION, "a version number")?;
        if version > u64::from(FORMAT_VERSION) {
            return Err(CacheError::NewerVersion { path: path.into(), found: version, supported: FORMAT_VERSION });
        }
        if version == 0 {
            return Err(entries.invalid(keys::FORMAT_VERSION, "at least 1"));
        }
        let bits = entries.parsed(keys::BITS, "a number of bits")?;
        let grid = GridSpec::parse(entries.get(keys::GRID)?, bits)
            .map_err(|_| entries.invalid(keys::GRID, "HEIGHTxWIDTH within bounds"))?;
        let content = ContentSum::from_hex(entries.get(keys::CONTENT_SUM)?)
            .ok_or_else(|| entries.invalid(keys::CONTENT_SUM, "64 hex digits"))?;
        let footer = ShardFooter {
            grid,
            views: entries.parsed(keys::VIEWS, "a number of views")?,
            job: entries.get(keys::JOB)?.to_owned(),
            images: entries.json(keys::IMAGES)?,
            quarantined: entries.json(keys::QUARANTINED)?,
            row_groups: entries.json(keys::ROW_GROUPS)?,
            content,
            margins: match entries.find(keys::MARGINS) {
                Some(_) => entries.json(keys::MARGINS)?,
                None => Margins::default(),
            },
        };
        footer.check_images(&entries)?;
        Ok(footer)
    }

    /// The job that the shard says it is of, from which its manifest can be made again.
    ///
    /// # Errors
    /// [`CacheError::ShardMetadata`] naming the entry that is missing, or when the job's id is not that of the entries.
    pub(crate) fn identity(&self, path: &Path, file: &FileMetaData) -> Result<JobIdentity, CacheError> {
        let entries = Entries { path, file };
        let identity = JobIdentity {
            grid: self.grid.to_string(),
            bits: self.grid.bits,
            views: self.views,
            first_view: entries.parsed(keys::FIRST_VIEW, "a view")?,
            tokenizer: entries.json(keys::TOKENIZER)?,
            recipe: entries.json(keys::RECIPE)?,
            source: entries.json(keys::SOURCE)?,
            classes: entries.json(keys::CLASSES)?,
            splits: entries.json(keys::SPLITS)?,
        };
        if identity.id() == self.job { Ok(identity) } else { Err(entries.invalid(keys::JOB, "the id of the entries")) }
    }

    /// Images of the groups follow each other without gap inside the shard's, and every image is either encoded with
    /// all its views or quarantined.
    fn check_images(&self, entries: &Entries<'_>) -> Result<(), CacheError> {
        let [start, end] = self.images;
        let quarantined_in = |from, to| self.quarantined.iter().filter(|q| (from..to).contains(&q.index)).count();
        let sorted = self.quarantined.is_sorted_by(|a, b| a.index < b.index);
        if start > end || !sorted || quarantined_in(start, end) != self.quarantined.len() {
            return Err(entries.invalid(keys::QUARANTINED, "sorted image numbers within tokengrid.images"));
        }
        let mut next = start;
        let mut rows = 0usize;
        for group in &self.row_groups {
            let [from, to] = group.images;
            if from < next || to < from || to > end {
                return Err(entries.invalid(keys::ROW_GROUPS, "image ranges in order within tokengrid.images"));
            }
            next = to;
            rows = rows.saturating_add(group.rows);
            let expected = (to - from - quarantined_in(from, to)).checked_mul(self.views as usize);
            if expected != Some(group.rows) || group.rows == 0 {
                return Err(entries.invalid(keys::ROW_GROUPS, "all views of the images that are not quarantined"));
            }
        }
        if Some(rows) != (end - start - self.quarantined.len()).checked_mul(self.views as usize) {
            return Err(entries.invalid(keys::ROW_GROUPS, "row groups for all images of the shard"));
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> usize {
        self.row_groups.iter().map(|group| group.rows).sum()
    }
}

/// Strings, numbers, lists and maps with string keys: serializing them cannot fail.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

struct Entries<'a> {
    path: &'a Path,
    file: &'a FileMetaData,
}

impl<'a> Entries<'a> {
    fn find(&self, key: &str) -> Option<&'a str> {
        self.file.key_value_metadata()?.iter().find(|entry| entry.key == key)?.value.as_deref()
    }

    fn get(&self, key: &'static str) -> Result<&'a str, CacheError> {
        self.find(key).ok_or_else(|| self.invalid(key, "present"))
    }

    fn parsed<T: std::str::FromStr>(&self, key: &'static str, expected: &str) -> Result<T, CacheError> {
        self.get(key)?.parse().map_err(|_| self.invalid(key, expected))
    }

    fn json<T: DeserializeOwned>(&self, key: &'static str) -> Result<T, CacheError> {
        serde_json::from_str(self.get(key)?).map_err(|_| self.invalid(key, "JSON of the documented shape"))
    }

    fn invalid(&self, key: &'static str, expected: &str) -> CacheError {
        let actual = match self.find(key) {
            None => "missing".to_owned(),
            Some(text) => format!("{:?}", shown(text)),
        };
        CacheError::ShardMetadata { path: self.path.into(), key, expected: expected.to_owned(), actual }
    }
}
