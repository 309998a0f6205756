//! Some rows of a cache, without opening all of it.

use crate::cancel;
use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::manifest::Manifest;
use crate::format::row::RowMeta;
use crate::format::schema::TOKENS;
use crate::inspect::find::{FoundRows, RowFilter, find_by, find_in_index};
use crate::lookup::key_index::KeyIndex;
use crate::remote::ranges::Ranges;
use crate::remote::staged::LocalFolder;
use crate::shard::access::Access;
use crate::shard::check_once::CheckOnce;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// A finished cache of which a few rows are looked at: the manifest is checked when it is opened, a shard when a row of
/// it is asked for. Opening takes milliseconds, however many rows there are; [`TokenCache`](crate::TokenCache) is for
/// many rows.
///
/// What [`TokenCache`](crate::TokenCache) says of files that are truncated while they are mapped holds here as well.
pub struct RowReader {
    dir: PathBuf,
    manifest: Manifest,
    grid: GridSpec,
    groups: Vec<Group>,
    files: Files,
    index: OnceLock<Option<KeyIndex>>,
}

/// Where rows are read from.
enum Files {
    /// The cache's folder, or a staged copy; its shards, mapped when one is asked for.
    Local(LocalFolder, Vec<OnceLock<(Shard, Arc<Bytes>)>>),
    /// The bucket.
    Remote(Ranges),
}

/// A row group, by the manifest.
struct Group {
    rows: Range<usize>,
    shard: usize,
    group: usize,
    /// Whether the grids are those of their checksum.
    checked: CheckOnce,
}

/// Called with a row group that has some of the rows, and their places in it.
type VisitGroup<'a> = dyn FnMut(&Group, Range<usize>) -> Result<(), CacheError> + 'a;

impl RowReader {
    /// Opens the cache in `dir`, a folder or a URL. Of a cache in a bucket, rows are read by ranges and nothing is staged; where all of
    /// it is staged already, from there.
    ///
    /// # Errors
    /// As [`Manifest::read`]; of a bucket also [`CacheError::MissingShard`] and [`CacheError::ShardSize`].
    ///
    /// ```
    /// use tokengrid_cache::{RowReader, write_synthetic_cache};
    /// # fn main() -> Result<(), tokengrid_cache::CacheError> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let dir = &folder.path().join("cache");
    /// write_synthetic_cache(dir, 100, 2)?;
    /// let reader = RowReader::open(dir)?;
    /// assert_eq!(reader.metas(7..8)?[0].view, 1);
    /// # Ok(()) }
    /// ```
    pub fn open(dir: &Path) -> Result<RowReader, CacheError> {
        let (manifest, files) = Files::open(dir)?;
        let mut groups = Vec::new();
        let mut next = 0;
        for (shard, entry) in manifest.shards.iter().enumerate() {
            for (group, entry) in entry.row_groups.iter().enumerate() {
                let checked = CheckOnce::default();
                groups.push(Group { rows: next..next + entry.rows, shard, group, checked });
                next += entry.rows;
            }
        }
        let (dir, grid) = (dir.to_owned(), manifest.grid_spec());
        Ok(RowReader { dir, manifest, grid, groups, files, index: OnceLock::new() })
    }

    /// The folder or URL, as it was named.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder that holds the cache's files, or the URL where they are not on this machine.
    pub fn local_dir(&self) -> &Path {
        match &self.files {
            Files::Local(folder, _) => folder.path(),
            Files::Remote(_) => &self.dir,
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Shape of every grid.
    pub fn grid(&self) -> GridSpec {
        self.grid
    }

    /// Rows.
    pub fn num_rows(&self) -> usize {
        self.manifest.rows
    }

    /// Views (rows) of every image.
    pub fn num_views(&self) -> usize {
        self.manifest.views as usize
    }

    /// The splits in order, with the images of each.
    pub fn splits(&self) -> Vec<(&str, Range<usize>)> {
        self.manifest.splits_by_images()
    }

    /// Finds the rows that `filter` lets through, without reading any. A filter by key or class needs the index that lies
    /// beside large caches: `None` where there is none, and [`find_rows`](crate::find_rows) will do. Of a cache in a bucket, the labels
    /// or keys are read by ranges.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`]; of a cache in a bucket as [`RowReader::metas`].
    pub fn find(&self, filter: &RowFilter, cancel: &AtomicBool) -> Result<Option<FoundRows>, CacheError> {
        if let Files::Remote(ranges) = &self.files {
            let find = |images: &Range<usize>| ranges.find(&self.manifest, images, filter.label, filter.key.as_deref());
            return find_by(&self.manifest, filter, find).map(Some);
        }
        let index = || self.index.get_or_init(|| KeyIndex::load(self.local_dir(), &self.manifest)).as_ref();
        let needed = filter.key.is_some() || filter.label.is_some();
        find_in_index(&self.manifest, needed.then(index).flatten(), filter, cancel)
    }

    /// Key, label, view and crop of consecutive rows.
    ///
    /// # Errors
    /// [`CacheError::RowOutOfRange`]; the variant that names the damage of a shard or of its columns.
    pub fn metas(&self, rows: Range<usize>) -> Result<Vec<RowMeta>, CacheError> {
        let mut metas = Vec::with_capacity(rows.len());
        self.visit(rows, &mut |&Group { shard, group, .. }, local| {
            match &self.files {
                Files::Local(folder, shards) => {
                    let (shard, bytes) = self.mapped(folder, &shards[shard], shard)?;
                    metas.extend(shard.row_metas(bytes, group, local)?);
                    // Rows are looked at once.
                    shard.release(bytes, group);
                }
                Files::Remote(ranges) => {
                    let bytes = ranges.columns(&self.manifest, shard, group)?;
                    metas.extend(ranges.shard(&self.manifest, shard)?.row_metas(&bytes, group, local)?);
                }
            }
            Ok(())
        })?;
        Ok(metas)
    }

    /// Compares the grids of the row groups that `rows` are in with their checksums, each group once. That reads all of them, up to
    /// 64 MiB per group. Of a cache in a bucket that is not staged, nothing is compared.
    ///
    /// # Errors
    /// As [`RowReader::metas`].
    pub fn check_tokens(&self, rows: Range<usize>) -> Result<(), CacheError> {
        self.visit(rows, &mut |Group { shard, group, checked, .. }, _| match &self.files {
            Files::Local(folder, shards) => {
                let (shard, bytes) = self.mapped(folder, &shards[*shard], *shard)?;
                checked.make(|| shard.verify_column(bytes, *group, TOKENS))?;
                shard.release(bytes, *group);
                Ok(())
            }
            Files::Remote(_) => Ok(()),
        })
    }

    /// Reads the packed grids of some rows into `out`, `grid().row_bytes()` bytes each, as they are: what they are compared with is a
    /// matter of [`RowReader::check_tokens`].
    ///
    /// # Errors
    /// As [`RowReader::metas`].
    pub fn read_packed(&self, rows: &[usize], out: &mut Vec<u8>) -> Result<(), CacheError> {
        out.clear();
        let row_bytes = self.grid.row_bytes();
        let mut places = Vec::new();
        for run in rows.chunk_by(|row, next| row + 1 == *next) {
            self.visit(run[0]..run[0] + run.len(), &mut |&Group { shard: index, group, .. }, local| {
                let offset_in = |shard: &Shard| shard.token_range(group).start + local.start * row_bytes;
                match &self.files {
                    Files::Local(folder, shards) => {
                        let (shard, bytes) = self.mapped(folder, &shards[index], index)?;
                        out.extend_from_slice(&bytes[offset_in(shard)..][..local.len() * row_bytes]);
                        shard.release(bytes, group);
                    }
                    Files::Remote(ranges) => {
                        let first = offset_in(ranges.shard(&self.manifest, index)?);
                        places.extend((0..local.len()).map(|row| (index, (first + row * row_bytes) as u64)));
                    }
                }
                Ok(())
            })?;
        }
        match &self.files {
            Files::Local(..) => Ok(()),
            Files::Remote(ranges) => ranges.read(&self.manifest, &places, row_bytes, out),
        }
    }

    /// Calls `visit` with each row group that has some of `rows`, and their places in it.
    fn visit(&self, rows: Range<usize>, visit: &mut VisitGroup<'_>) -> Result<(), CacheError> {
        if rows.end > self.num_rows() {
            return Err(CacheError::RowOutOfRange { row: rows.end - 1, num_rows: self.num_rows() });
        }
        let first = self.groups.partition_point(|group| group.rows.end <= rows.start);
        for group in self.groups[first..].iter().take_while(|group| group.rows.start < rows.end) {
            cancel::check()?;
            let [start, end] = [rows.start.max(group.rows.start), rows.end.min(group.rows.end)];
            visit(group, start - group.rows.start..end - group.rows.start)?;
        }
        Ok(())
    }

    fn mapped<'a>(
        &self,
        folder: &LocalFolder,
        slot: &'a OnceLock<(Shard, Arc<Bytes>)>,
        index: usize,
    ) -> Result<&'a (Shard, Arc<Bytes>), CacheError> {
        if let Some(shard) = slot.get() {
            return Ok(shard);
        }
        let shard = Shard::open_of(folder.path(), &self.manifest, index)?;
        let bytes = shard.load(Access::Map)?;
        shard.handle.close();
        Ok(slot.get_or_init(|| (shard, bytes)))
    }
}

impl Files {
    fn open(dir: &Path) -> Result<(Manifest, Files), CacheError> {
        if let Some((manifest, ranges)) = Ranges::open_unstaged(dir)? {
            return Ok((manifest, Files::Remote(ranges)));
        }
        let folder = LocalFolder::of(dir)?;
        let manifest = Manifest::read(folder.path())?;
        let shards = manifest.shards.iter().map(|_| OnceLock::new()).collect();
        Ok((manifest, Files::Local(folder, shards)))
    }
}

impl fmt::Debug for RowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowReader").field("dir", &self.dir).field("rows", &self.num_rows()).finish_non_exhaustive()
    }
}
