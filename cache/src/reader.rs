//! Reading a finished cache: validated as a whole, then rows straight from the map.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::cancel;
use crate::error::CacheError;
use crate::grid::GridSpec;
use crate::group::Row;
use crate::hash::ContentSum;
use crate::manifest::Manifest;
use crate::parallel::{self, num_threads};
use crate::schema::TOKENS;
use crate::shard::{Shard, map};
use crate::unpack::{unpack, unpack_factorized};

/// Takes an image's number and rows: see [`TokenCache::visit_images`].
pub type VisitImage<'a> = dyn FnMut(usize, &[Row<'_>]) -> Result<(), CacheError> + 'a;

/// How the shards' bytes are brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Map the files: nothing is read before it is used, and the operating system keeps what is used.
    #[default]
    Map,
    /// Map the files and tell the operating system that they are read in random order (`madvise(MADV_RANDOM)`), so that
    /// a read brings in its own pages and no more: for a cache that is larger than memory.
    MapRandom,
    /// Map the files and read all of them at once (`MAP_POPULATE`): for a cache that fits in memory, so that no read
    /// waits for the disk later.
    Preload,
    /// Read the files into memory: immune to a file that is truncated while it is in use.
    Copy,
}

/// Everything about a row but its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMeta {
    /// The source's own name of the image.
    pub key: String,
    /// Class index, -1 when unknown.
    pub label: i32,
    /// Which view of the image, from 0.
    pub view: u32,
    /// Left edge of the crop in the resized image, in pixels.
    pub crop_x: i32,
    /// Top edge of the crop in the resized image, in pixels.
    pub crop_y: i32,
    /// Whether the crop was mirrored.
    pub flip: bool,
}

/// Left edge, top edge and mirroring of a crop.
pub(crate) type Crop = (i32, i32, bool);

impl RowMeta {
    /// The row that this describes, with tokens.
    pub(crate) fn row<'a>(&'a self, tokens: &'a [u32]) -> Row<'a> {
        Row {
            tokens,
            label: self.label,
            key: &self.key,
            view: self.view,
            crop_x: self.crop_x,
            crop_y: self.crop_y,
            flip: self.flip,
        }
    }
}

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
    dir: PathBuf,
    manifest: Manifest,
    grid: GridSpec,
    row_bytes: usize,
    num_rows: usize,
    /// One an image: its views share it.
    labels: Vec<i32>,
    groups: RowIndex,
    shards: Vec<(Shard, Arc<Bytes>)>,
    /// Shards whose files are open, the one that was opened last behind the others.
    open_files: Mutex<VecDeque<usize>>,
}

/// Files that stay open for reads by position; there may be thousands of shards.
const OPEN_FILES_MAX: usize = 16;

/// One row group's grids.
struct TokenGroup {
    rows: Range<usize>,
    tokens: Bytes,
    /// Shard, and row group in it.
    place: (usize, usize),
}

impl TokenCache {
    /// Opens the cache in `dir`, mapped. See [`TokenCache::open_with`].
    ///
    /// # Errors
    /// As [`TokenCache::open_with`].
    pub fn open(dir: &Path) -> Result<TokenCache, CacheError> {
        Self::open_with(dir, Access::Map)
    }

    /// Opens the cache in `dir` after validating the manifest and, for every shard, its size, the checksum of its
    /// footer, that it belongs to this cache, and where its token pages lie; then reads and verifies the labels. Token
    /// bytes are verified by [`crate::verify()`], not here: that would read all of them.
    ///
    /// # Errors
    /// [`CacheError::NotACache`], [`CacheError::Unfinished`], [`CacheError::NewerVersion`],
    /// [`CacheError::MissingShard`], [`CacheError::ForeignShard`], or the variant that names the damage.
    pub fn open_with(dir: &Path, access: Access) -> Result<TokenCache, CacheError> {
        let manifest = Manifest::read(dir)?;
        let grid = manifest.grid_spec();
        let mut shards = Vec::with_capacity(manifest.shards.len());
        for entry in &manifest.shards {
            let shard = Shard::open(&dir.join(&entry.file), Some(entry))?;
            shard.check_belongs(&manifest.job, grid, manifest.views)?;
            shard.check_entry(entry)?;
            shard.handle.close();
            shards.push(shard);
        }
        // Only now, with every shard validated, is anything mapped. A map needs no open file.
        let load = |shard: Shard| {
            let bytes = shard.load(access)?;
            shard.handle.close();
            Ok((shard, bytes))
        };
        let shards = shards.into_iter().map(load).collect::<Result<Vec<_>, CacheError>>()?;
        let mut labels = Vec::with_capacity(manifest.images);
        let mut groups = Vec::new();
        let mut num_rows = 0;
        for (index, (shard, bytes)) in shards.iter().enumerate() {
            for group in 0..shard.num_groups() {
                let start = num_rows;
                num_rows += shard.group_rows(group);
                labels.extend(shard.image_labels(bytes, group)?);
                let tokens = bytes.slice(shard.token_range(group));
                groups.push(TokenGroup { rows: start..num_rows, tokens, place: (index, group) });
            }
        }
        let (dir, row_bytes, groups) = (dir.to_owned(), grid.row_bytes(), RowIndex::new(groups, num_rows));
        let open_files = Mutex::default();
        Ok(TokenCache { dir, manifest, grid, row_bytes, num_rows, labels, groups, shards, open_files })
    }

    /// A shard of which a page could not be read while it was mapped: with [`crate::LostPages::Zeros`], what was read since
    /// the cache was opened may be wrong. `None` as long as all is well.
    pub fn lost_shard(&self) -> Option<&Path> {
        self.lost_shards().next()
    }

    /// All of them.
    pub fn lost_shards(&self) -> impl Iterator<Item = &Path> {
        let lost = self.shards.iter().filter(|(_, bytes)| map::has_lost_pages(bytes));
        lost.map(|(shard, _)| shard.path.as_path())
    }

    /// The file of a shard, for reads by position; `None` where it is gone or another one has its name: what is mapped is
    /// still there.
    fn file_of(&self, shard: usize) -> Option<Arc<File>> {
        let handle = &self.shards[shard].0.handle;
        if let Some(file) = handle.opened() {
            return Some(file);
        }
        let mut open = self.open_files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = handle.file().ok()?;
        open.push_back(shard);
        if open.len() > OPEN_FILES_MAX
            && let Some(oldest) = open.pop_front()
        {
            self.shards[oldest].0.handle.close();
        }
        Some(file)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
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
        let split = self.manifest.splits.iter().find(|split| split.name == name)?;
        let rows = self.manifest.split_rows(split);
        Some(rows.start / self.num_views()..rows.end / self.num_views())
    }

    /// The splits in order, with the images of each.
    pub fn splits(&self) -> Vec<(&str, Range<usize>)> {
        let names = self.manifest.splits.iter().map(|split| split.name.as_str());
        names.filter_map(|name| Some((name, self.split_images(name)?))).collect()
    }

    /// The images of a shard, by its place in the manifest; none where there is no such shard.
    pub fn shard_images(&self, shard: usize) -> Range<usize> {
        let images = |shards: &[crate::manifest::ShardEntry]| {
            shards.iter().map(|shard| shard.rows).sum::<usize>() / self.num_views().max(1)
        };
        let shards = &self.manifest.shards;
        images(&shards[..shard.min(shards.len())])..images(&shards[..shard.saturating_add(1).min(shards.len())])
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

    /// The packed grid of a row, straight from the map: `grid().row_bytes()` bytes.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn packed_row(&self, row: usize) -> &[u8] {
        let group = self.groups.find(row);
        let start = (row - group.rows.start) * self.row_bytes;
        &group.tokens[start..start + self.row_bytes]
    }

    /// Calls `visit` with the place in `rows` and the packed grid of each of `rows`, in order, while the next ones are
    /// on their way from memory: the fast way through rows in random order.
    ///
    /// # Panics
    /// When a row is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn visit_packed(&self, rows: &[usize], mut visit: impl FnMut(usize, &[u8])) {
        let mut ahead: [&[u8]; PREFETCH_ROWS] = [&[]; PREFETCH_ROWS];
        for (slot, row) in ahead.iter_mut().zip(rows) {
            *slot = self.packed_row(*row);
            prefetch(slot);
        }
        for i in 0..rows.len() {
            let slot = &mut ahead[i % PREFETCH_ROWS];
            let packed = *slot;
            if let Some(row) = rows.get(i + PREFETCH_ROWS) {
                *slot = self.packed_row(*row);
                prefetch(slot);
            }
            visit(i, packed);
        }
    }

    /// The class index of a row, -1 when unknown.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn label(&self, row: usize) -> i32 {
        self.labels[row / self.manifest.views as usize]
    }

    /// The class index of an image, -1 when unknown.
    ///
    /// # Panics
    /// When `image` is not below [`TokenCache::num_images`].
    pub fn image_label(&self, image: usize) -> i32 {
        self.labels[image]
    }

    /// Unpacks the tokens of a row, raster order, into `grid().num_tokens()` elements.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`] or `out` has another length.
    pub fn tokens_into(&self, row: usize, out: &mut [u32]) {
        unpack(self.packed_row(row), self.grid.bits, out);
    }

    /// Unpacks the tokens of `rows` in two parts, raster order, row after row: their `low_bits` lowest bits into `low`, the
    /// others into `high`. What training does with the rows that [`crate::Loader::next_rows`] chose.
    ///
    /// # Panics
    /// When a row is not below [`TokenCache::num_rows`], a part has another length than `rows.len() * num_tokens`, or
    /// `low_bits` is more than the grid's bits.
    pub fn factorized_into(&self, rows: &[usize], low_bits: u32, low: &mut [i64], high: &mut [i64]) {
        let num_tokens = self.grid.num_tokens();
        assert_eq!(
            (low.len(), high.len()),
            (rows.len() * num_tokens, rows.len() * num_tokens),
            "a number for each token"
        );
        let mut parts = low.chunks_exact_mut(num_tokens).zip(high.chunks_exact_mut(num_tokens));
        self.visit_packed(rows, |_, packed| {
            if let Some((low, high)) = parts.next() {
                unpack_factorized(packed, self.grid.bits, low_bits, low, high);
            }
        });
    }

    /// Key, label, view and crop of a row, from the Parquet columns of its row group.
    ///
    /// # Errors
    /// [`CacheError::RowOutOfRange`]; or the columns are damaged.
    pub fn meta(&self, row: usize) -> Result<RowMeta, CacheError> {
        let mut metas = self.metas(row..row.saturating_add(1))?;
        metas.pop().ok_or(CacheError::RowOutOfRange { row, num_rows: self.num_rows() })
    }

    /// Key, label, view and crop of consecutive rows: far cheaper for many rows than one [`TokenCache::meta`] each.
    ///
    /// # Errors
    /// As [`TokenCache::meta`].
    pub fn metas(&self, rows: Range<usize>) -> Result<Vec<RowMeta>, CacheError> {
        if rows.end > self.num_rows() {
            return Err(CacheError::RowOutOfRange { row: rows.end - 1, num_rows: self.num_rows() });
        }
        let mut metas = Vec::with_capacity(rows.len());
        let mut next = rows.start;
        while next < rows.end {
            let group = self.groups.find(next);
            let end = group.rows.end.min(rows.end);
            let (shard, bytes) = &self.shards[group.place.0];
            let local = next - group.rows.start..end - group.rows.start;
            cancel::check()?;
            metas.extend(shard.row_metas(bytes, group.place.1, local)?);
            shard.release(bytes, group.place.1);
            next = end;
        }
        Ok(metas)
    }

    /// The crops of consecutive rows: what [`TokenCache::metas`] tells of them, without keys.
    pub(crate) fn crops(&self, rows: Range<usize>) -> Result<Vec<Crop>, CacheError> {
        let mut crops = Vec::with_capacity(rows.len());
        let mut next = rows.start;
        while next < rows.end {
            cancel::check()?;
            let group = self.groups.find(next);
            let end = group.rows.end.min(rows.end);
            let (shard, bytes) = &self.shards[group.place.0];
            shard.crops(bytes, group.place.1, next - group.rows.start..end - group.rows.start, &mut crops)?;
            shard.release(bytes, group.place.1);
            next = end;
        }
        Ok(crops)
    }

    /// The rows of the row group that a row is in.
    pub(crate) fn group_rows_around(&self, row: usize) -> Range<usize> {
        self.groups.find(row).rows.clone()
    }

    /// Calls `visit` with the number and the rows of each of `images` that `wanted` accepts, in order, verifying every
    /// column on the way: how caches are copied.
    ///
    /// # Errors
    /// [`CacheError::RowOutOfRange`]; the variant that names the damage; or what `visit` returns.
    pub fn visit_images(
        &self,
        images: Range<usize>,
        wanted: &dyn Fn(usize) -> bool,
        visit: &mut VisitImage<'_>,
    ) -> Result<(), CacheError> {
        if images.end > self.num_images() {
            let row = images.end.saturating_mul(self.num_views()) - 1;
            return Err(CacheError::RowOutOfRange { row, num_rows: self.num_rows() });
        }
        let (views, num_tokens) = (self.num_views(), self.grid.num_tokens());
        let mut tokens = vec![0; num_tokens * views];
        let mut next = images.start;
        while next < images.end {
            let group = self.groups.find(next * views);
            let end = (group.rows.end / views).min(images.end);
            if !(next..end).any(wanted) {
                next = end;
                continue;
            }
            let (shard, bytes) = &self.shards[group.place.0];
            shard.verify_column(bytes, group.place.1, TOKENS)?;
            let local = next * views - group.rows.start..end * views - group.rows.start;
            let metas = shard.row_metas(bytes, group.place.1, local)?;
            for (image, metas) in (next..end).zip(metas.chunks_exact(views)).filter(|(image, _)| wanted(*image)) {
                for (row, tokens) in self.image_rows(image).zip(tokens.chunks_exact_mut(num_tokens)) {
                    self.tokens_into(row, tokens);
                }
                let rows: Vec<_> = metas.iter().zip(tokens.chunks_exact(num_tokens)).map(|(m, t)| m.row(t)).collect();
                visit(image, &rows)?;
                cancel::check()?;
            }
            // Rows are read once here: they should not pile up in this program's memory.
            shard.release(bytes, group.place.1);
            next = end;
        }
        Ok(())
    }

    /// Reads the packed grids of consecutive rows into `out`, `grid().row_bytes()` bytes each: by position from the files,
    /// so that rows that are read once do not stay in this program's memory as mapped pages do.
    ///
    /// # Errors
    /// [`CacheError::RowOutOfRange`]; the file cannot be read.
    pub fn read_packed(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), CacheError> {
        if rows.end > self.num_rows() {
            return Err(CacheError::RowOutOfRange { row: rows.end - 1, num_rows: self.num_rows() });
        }
        out.resize(rows.len() * self.row_bytes, 0);
        let mut rest = out.as_mut_slice();
        let mut next = rows.start;
        while next < rows.end {
            let group = self.groups.find(next);
            let end = group.rows.end.min(rows.end);
            let (part, more) = rest.split_at_mut((end - next) * self.row_bytes);
            let start = (next - group.rows.start) * self.row_bytes;
            let (shard, bytes) = &self.shards[group.place.0];
            let file = self.file_of(group.place.0);
            shard.read_tokens(bytes, file.as_deref(), group.place.1, start, part)?;
            (rest, next) = (more, end);
        }
        Ok(())
    }

    /// Calls `visit` with the number and the key of each of `images`.
    pub(crate) fn visit_keys(
        &self,
        images: Range<usize>,
        visit: &mut dyn FnMut(usize, &str) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let views = self.num_views();
        let mut next = images.start;
        while next < images.end {
            cancel::check()?;
            let group = self.groups.find(next * views);
            let end = (group.rows.end / views).min(images.end);
            let (shard, bytes) = &self.shards[group.place.0];
            let keys =
                shard.keys(bytes, group.place.1, next * views - group.rows.start..end * views - group.rows.start)?;
            for (image, key) in (next..end).zip(keys.iter().step_by(views)) {
                visit(image, shard.key_text(group.place.1, key)?)?;
            }
            shard.release(bytes, group.place.1);
            next = end;
        }
        Ok(())
    }

    /// Computes the content hash from the rows themselves, reading and verifying every column of the cache. Equal to
    /// [`TokenCache::content_hash`] unless the manifest lies.
    ///
    /// # Errors
    /// The variant that names the damage.
    pub fn recompute_content_hash(&self) -> Result<String, CacheError> {
        let sums = parallel::map(num_threads(), self.shards.len(), &mut |_| {}, |index, _| {
            let (shard, bytes) = &self.shards[index];
            let mut content = ContentSum::default();
            for group in 0..shard.num_groups() {
                shard.row_hashes(bytes, group, &self.manifest.splits)?.iter().for_each(|hash| content.add_row(hash));
            }
            Ok(content)
        })?;
        let mut content = ContentSum::default();
        sums.into_iter().for_each(|sum| content.add(sum));
        Ok(content.to_hex())
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

/// Rows that are asked for before the current one is used: enough to hide a trip to memory.
const PREFETCH_ROWS: usize = 8;

/// Asks for the cache lines of a row. A hint: it reads nothing and cannot fault.
#[inline]
fn prefetch(row: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching is defined for any address, and this one is inside `row`; SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Finds the row group of a row in constant time: row groups have different numbers of rows, so a table says for every
/// block of `1 << shift` rows in which group it begins, and the search goes on from there.
struct RowIndex {
    groups: Vec<TokenGroup>,
    first_group: Vec<u32>,
    shift: u32,
}

impl RowIndex {
    fn new(groups: Vec<TokenGroup>, num_rows: usize) -> RowIndex {
        // Blocks about as long as a mean group: a step or two from a block's first group to any row of it.
        let mean = num_rows / groups.len().max(1);
        let shift = mean.max(1).ilog2();
        let mut first_group = Vec::with_capacity((num_rows >> shift) + 1);
        let mut group = 0;
        for block_start in (0..num_rows).step_by(1 << shift) {
            while groups[group].rows.end <= block_start {
                group += 1;
            }
            first_group.push(group as u32);
        }
        RowIndex { groups, first_group, shift }
    }

    #[inline]
    fn find(&self, row: usize) -> &TokenGroup {
        let mut group = self.first_group[row >> self.shift] as usize;
        while self.groups[group].rows.end <= row {
            group += 1;
        }
        &self.groups[group]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_whatever_the_group_sizes() {
        for sizes in [vec![1], vec![5, 5, 5], vec![1, 100, 1, 1, 1, 7], vec![100, 1], vec![16_384, 16_380, 3]] {
            let mut groups = Vec::new();
            let mut next = 0;
            for (i, size) in sizes.iter().enumerate() {
                groups.push(TokenGroup { rows: next..next + size, tokens: Bytes::new(), place: (0, i) });
                next += size;
            }
            let index = RowIndex::new(groups, next);
            for row in 0..next {
                assert!(index.find(row).rows.contains(&row), "row {row} of {sizes:?}");
            }
        }
    }
}
