//! A finished cache, open for reading: validated as a whole before anything is mapped.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::manifest::Manifest;
use crate::inspect::find::{FoundRows, RowFilter, find_in_index};
use crate::lookup::key_index::KeyIndex;
use crate::lookup::write;
use crate::parallel;
use crate::parallel::num_threads;
use crate::read::labels::Labels;
use crate::read::row_index::{RowIndex, TokenGroup};
use crate::remote::staged::LocalFolder;
use crate::shard::access::Access;
use crate::shard::check_once::CheckOnce;
use crate::shard::map;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

/// A finished cache, open for reading; cheap to share between threads in an `Arc`.
///
/// Rows are numbered 0..[`TokenCache::num_rows`] in the order of the source's images; the views of an image follow each
/// other, so image i (of those that were encoded) has rows `i * num_views .. (i + 1) * num_views`.
///
/// # Truncation of a live file
/// With every [`Access`] but [`Access::Copy`], a file that another program truncates while the cache is open makes the process receive
/// `SIGBUS` on Unix (an exception on Windows) at the next read of the lost part ([`crate::handle_lost_pages`] says what then
/// happens); changing the file in place changes
/// what is read. This crate never does either: files are only ever replaced by rename. Where others may,
/// [`Access::Copy`] reads everything into memory first.
pub struct TokenCache {
    /// Where its files are; keeps a staged copy from being removed.
    local: LocalFolder,
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) grid: GridSpec,
    pub(super) row_bytes: usize,
    pub(super) num_rows: usize,
    /// Of each image: its views share it.
    pub(super) labels: Labels,
    pub(super) groups: RowIndex,
    pub(super) shards: Vec<(Shard, Arc<Bytes>)>,
    /// Shards whose files are open, the one that was opened last after the others.
    pub(super) open_files: Mutex<VecDeque<usize>>,
    /// What keys and labels are looked up in, once one is: see [`TokenCache::key_index`].
    pub(super) key_index: OnceLock<KeyIndex>,
}

/// Shards that are worth a thread when a cache is opened.
const SHARDS_PER_THREAD: usize = 4;

impl TokenCache {
    /// Opens the cache in `dir`, mapped. See [`TokenCache::open_with`].
    ///
    /// # Errors
    /// As [`TokenCache::open_with`].
    pub fn open(dir: &Path) -> Result<TokenCache, CacheError> {
        Self::open_with(dir, Access::Map)
    }

    /// Opens the cache in `dir`, a folder or a URL, after validating the manifest and, for every shard, its size, the checksum of its
    /// footer, that it belongs to this cache, and where its token pages lie; then reads and verifies the labels. Token
    /// bytes are verified by [`TokenCache::read_packed`] and [`crate::verify()`], not here: that would read all of them. A cache in a bucket is staged first, and
    /// what is fetched is compared with the manifest's checksums.
    ///
    /// # Errors
    /// [`CacheError::NotACache`], [`CacheError::Unfinished`], [`CacheError::NewerVersion`],
    /// [`CacheError::MissingShard`], [`CacheError::ForeignShard`]; for damage the variant that names it: of the manifest from
    /// [`CacheError::ManifestSyntax`] on, of a shard from [`CacheError::ShardSize`] to [`CacheError::PageHeader`].
    pub fn open_with(dir: &Path, access: Access) -> Result<TokenCache, CacheError> {
        let local = LocalFolder::of(dir)?;
        let manifest = Manifest::read(local.path())?;
        let grid = manifest.grid_spec();
        let threads = num_threads().min(manifest.shards.len() / SHARDS_PER_THREAD).max(1);
        let shards = parallel::map(threads, manifest.shards.len(), &mut |_| {}, |index, _| {
            Shard::open_of(local.path(), &manifest, index)
        })?;
        // Only now, with every shard validated, is anything mapped. A map needs no open file.
        let load = |shard: Shard| {
            let bytes = shard.load(access)?;
            shard.handle.close();
            Ok((shard, bytes))
        };
        let shards = shards.into_iter().map(load).collect::<Result<Vec<_>, CacheError>>()?;
        let labels = Labels::read(&shards, threads, matches!(access, Access::Map | Access::MapRandom))?;
        let mut groups = Vec::new();
        let mut num_rows = 0;
        for (index, (shard, bytes)) in shards.iter().enumerate() {
            for group in 0..shard.num_groups() {
                let start = num_rows;
                num_rows += shard.group_rows(group);
                let tokens = bytes.slice(shard.token_range(group));
                let checked = CheckOnce::default();
                groups.push(TokenGroup { rows: start..num_rows, tokens, place: (index, group), checked });
            }
        }
        let (dir, row_bytes, groups) = (dir.to_owned(), grid.row_bytes(), RowIndex::new(groups, num_rows));
        let (open_files, key_index) = (Mutex::default(), OnceLock::new());
        Ok(TokenCache {
            local,
            dir,
            manifest,
            grid,
            row_bytes,
            num_rows,
            labels,
            groups,
            shards,
            open_files,
            key_index,
        })
    }

    /// A shard of which a page could not be read while it was mapped: with [`crate::LostPages::Zeros`], what was read since
    /// the cache was opened may be wrong. `None` as long as there is none.
    pub fn lost_shard(&self) -> Option<&Path> {
        self.lost_shards().next()
    }

    /// All of them.
    pub fn lost_shards(&self) -> impl Iterator<Item = &Path> {
        let lost = self.shards.iter().filter(|(_, bytes)| map::has_lost_pages(bytes));
        lost.map(|(shard, _)| shard.path.as_path())
    }

    /// The folder or URL, as it was named.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder that holds the cache's files: of a cache in a bucket, that of its staged copy.
    pub fn local_dir(&self) -> &Path {
        self.local.path()
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Shape of every grid.
    pub fn grid(&self) -> GridSpec {
        self.grid
    }

    /// Rows: `num_images * num_views`.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Images with rows.
    pub fn num_images(&self) -> usize {
        self.manifest.images
    }

    /// Views (rows) of every image.
    pub fn num_views(&self) -> usize {
        self.manifest.views as usize
    }

    /// The images of a split, for [`crate::Loader::over`]; `None` when the cache has no split of that name.
    pub fn split_images(&self, name: &str) -> Option<Range<usize>> {
        self.manifest.split_images(name)
    }

    /// The splits in order, with the images of each.
    pub fn splits(&self) -> Vec<(&str, Range<usize>)> {
        self.manifest.splits_by_images()
    }

    /// The images of a shard, by its place in the manifest; none where there is no such shard.
    pub fn shard_images(&self, shard: usize) -> Range<usize> {
        self.manifest.shard_images(shard)
    }

    /// The index of keys and labels that lies beside the cache, where there is one of this cache.
    pub(crate) fn key_index(&self) -> Option<&KeyIndex> {
        if let Some(index) = self.key_index.get() {
            return Some(index);
        }
        let index = KeyIndex::load(self.local_dir(), &self.manifest)?;
        Some(self.key_index.get_or_init(|| index))
    }

    /// As [`crate::find_rows`], from the index of keys and labels that lies beside a large cache. `None` where there is none, and
    /// one is needed.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`].
    pub fn find_in_index(&self, filter: &RowFilter, cancel: &AtomicBool) -> Result<Option<FoundRows>, CacheError> {
        find_in_index(&self.manifest, self.key_index(), filter, cancel)
    }

    /// As [`TokenCache::key_index`]; a large cache that has none gets one, where its folder can be written to.
    pub(crate) fn key_index_or_new(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Option<&KeyIndex> {
        if self.key_index().is_none() && write::is_worth_it(&self.manifest) {
            write::write(self, cancel, progress).ok()?;
        }
        self.key_index()
    }

    /// The rows of an image, `0..num_images`: its views in order.
    pub fn image_rows(&self, image: usize) -> Range<usize> {
        let views = self.num_views();
        image * views..(image + 1) * views
    }

    /// Hash over the set of rows: 64 hex digits.
    pub fn content_hash(&self) -> &str {
        &self.manifest.content_hash
    }

    /// The class index of a row, -1 when unknown.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn label(&self, row: usize) -> i32 {
        self.labels.get(row / self.manifest.views as usize)
    }

    /// The class index of an image, -1 when unknown.
    ///
    /// # Panics
    /// When `image` is not below [`TokenCache::num_images`].
    pub fn image_label(&self, image: usize) -> i32 {
        self.labels.get(image)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("dir", &self.dir)
            .field("rows", &self.num_rows())
            .field("content_hash", &self.content_hash())
            .finish_non_exhaustive()
    }
}
