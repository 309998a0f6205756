//! Everything about rows but their tokens, and whole images, in order.

use crate::error::CacheError;
use crate::format::hash::ContentSum;
use crate::format::row::{Crop, Row, RowMeta};
use crate::format::schema::TOKENS;
use crate::parallel::num_threads;
use crate::read::cache::TokenCache;
use crate::{cancel, parallel};
use std::ops::Range;

/// Takes an image's number and rows: see [`TokenCache::visit_images`].
pub type VisitImage<'a> = dyn FnMut(usize, &[Row<'_>]) -> Result<(), CacheError> + 'a;

impl TokenCache {
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

    /// The rows of every row group, in order.
    pub(crate) fn group_rows(&self) -> Vec<Range<usize>> {
        self.groups.rows()
    }

    /// Takes the row group that a row is in out of this process's memory, where it is mapped.
    pub(crate) fn release_rows(&self, row: usize) {
        let (index, group) = self.groups.find(row).place;
        let (shard, bytes) = &self.shards[index];
        shard.release(bytes, group);
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
