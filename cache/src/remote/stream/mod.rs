//! A cache in a bucket whose rows are read while its shards are on their way.
//!
//! What a shard says of itself and the labels of all images come first, by ranges, and are compared with their checksums. A row
//! whose shard is staged is read from the map. Any other is read by a separate range, which no checksum covers; it is recorded, and
//! compared once the shard is there.
//!
//! | module | what it is for |
//! |---|---|
//! | `labels` | footers and labels by ranges |
//! | `shard` | a shard before and after it is mapped |
//! | `rows` | rows that are being read |
//! | `behind` | staging while rows are read |

mod behind;
pub(super) mod labels;
pub(crate) mod rows;
mod shard;

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::manifest::Manifest;
use crate::remote::staged::{files_of, read_manifest};
use crate::shard::access::Access;
use shard::RemoteShard;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokengrid_store::{Bucket, Place, Staging};

/// A finished cache in a bucket, open for reading rows; it need not be staged.
///
/// Rows are numbered as those of [`crate::TokenCache`].
pub struct StreamedCache(Arc<Shared>);

/// What the cache, rows that are being read and the thread that stages have in common.
struct Shared {
    dir: PathBuf,
    manifest: Manifest,
    row_bytes: usize,
    /// One per image.
    labels: Vec<i32>,
    shards: Vec<RemoteShard>,
    /// The first row of each shard.
    first_rows: Vec<usize>,
    bucket: Bucket,
    staging: Staging,
    access: Access,
    is_staging: AtomicBool,
    is_stopped: AtomicBool,
    /// Why staging ended, until a reader has reported it.
    failure: Mutex<Option<CacheError>>,
}

/// Shards for which the stage folder has no room: their rows are read from the bucket every time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The cache's URL.
    pub dir: PathBuf,
    /// Shards that are left out.
    pub shards: usize,
    /// Shards of the cache.
    pub num_shards: usize,
}

impl StreamedCache {
    /// Opens the cache in a bucket at `dir`; `None` where [`crate::TokenCache::open_with`] has nothing to wait for: the cache is a local
    /// one, or all of it is staged. Nothing is staged by this.
    ///
    /// # Errors
    /// As [`crate::TokenCache::open_with`], of what is read: manifest, footers, labels.
    pub fn open(dir: &Path, access: Access) -> Result<Option<StreamedCache>, CacheError> {
        let Some(place) = Place::parse(dir)? else { return Ok(None) };
        let bucket = Bucket::of(&place)?;
        let (manifest, text) = read_manifest(dir, &place, &bucket)?;
        let staging = Staging::begin(&place, &bucket, files_of(&place, &manifest, &text))?;
        if staging.is_complete() {
            return Ok(None);
        }
        let found = labels::read(dir, &place, &bucket, &manifest)?;
        let mut first_rows = Vec::with_capacity(found.shards.len());
        let mut next = 0;
        for shard in &found.shards {
            first_rows.push(next);
            next += shard.num_rows();
        }
        Ok(Some(StreamedCache(Arc::new(Shared {
            dir: dir.to_owned(),
            row_bytes: manifest.grid_spec().row_bytes(),
            manifest,
            labels: found.labels,
            shards: found.shards,
            first_rows,
            bucket,
            staging,
            access,
            is_staging: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
        }))))
    }

    /// The URL, as it was named.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Shape of every grid.
    pub fn grid(&self) -> GridSpec {
        self.0.manifest.grid_spec()
    }

    /// The class index of a row, -1 when unknown.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn label(&self, row: usize) -> i32 {
        self.0.labels[row / self.0.manifest.views as usize]
    }

    /// Begins to stage the shards in a separate thread, in the order in which `rows` needs them; those that it does not need
    /// come last. Where the stage folder has no room for all, the rest is always read by ranges, and `left_out` is called: before
    /// this returns, or later where others take the room. A second call does nothing.
    ///
    /// # Errors
    /// [`CacheError::Io`] of the stage folder, or where no thread can be started. Later failures are returned for the next rows that are
    /// read.
    pub fn stage_behind(
        &self,
        rows: impl Iterator<Item = usize>,
        left_out: impl Fn(&LeftOut) + Send + 'static,
    ) -> Result<(), CacheError> {
        if self.0.is_staging.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        behind::start(&self.0, self.0.order_of_need(rows), left_out)
    }

    /// Begins to read rows that are not staged yet; `rows` may be in any order and name one twice.
    ///
    /// # Errors
    /// Staging has failed.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn begin(&self, rows: Vec<usize>) -> Result<rows::PendingRows, CacheError> {
        rows::PendingRows::begin(&self.0, rows)
    }
}

impl Shared {
    /// The shard of a row, and the row's number in it.
    fn shard_of(&self, row: usize) -> (usize, usize) {
        assert!(row < self.manifest.rows, "row {row} of {}", self.manifest.rows);
        // A shard without rows begins where the next one does, so the last of these has the row.
        let shard = self.first_rows.partition_point(|first| *first <= row) - 1;
        (shard, row - self.first_rows[shard])
    }

    /// The files of the cache in the order in which `rows` need them, the others behind.
    fn order_of_need(&self, rows: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.shards.len() + 2);
        let mut is_named = vec![false; self.shards.len()];
        for row in rows {
            let (shard, _) = self.shard_of(row);
            if !std::mem::replace(&mut is_named[shard], true) {
                order.push(shard);
            }
            if order.len() == self.shards.len() {
                break;
            }
        }
        order.extend((0..self.shards.len()).filter(|shard| !is_named[*shard]));
        // List and manifest, without which the set is not whole.
        order.extend(self.shards.len()..self.shards.len() + 2);
        order
    }

    fn fail(&self, error: CacheError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Why staging failed, if it did.
    fn check(&self) -> Result<(), CacheError> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for StreamedCache {
    fn drop(&mut self) {
        // The thread that stages ends with the range that it waits for.
        self.0.is_stopped.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for StreamedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedCache")
            .field("dir", &self.0.dir)
            .field("rows", &self.0.manifest.rows)
            .field("content_hash", &self.0.manifest.content_hash)
            .finish_non_exhaustive()
    }
}
