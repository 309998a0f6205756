//! A rank at work: rows to row groups to shards.

use crate::error::CacheError;
use crate::files::lock::Lock;
use crate::files::small::remove_if_present;
use crate::format::hash::ContentSum;
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::manifest::{Manifest, ShardEntry};
use crate::format::margins::Margins;
use crate::format::names::Name;
use crate::format::quarantine::QuarantineRecord;
use crate::format::row::Row;
use crate::format::schema::{GROUP_BYTES_MAX, MoreColumns};
use crate::format::split::Split;
use crate::import::one_x::holds_frames;
use crate::remote::out::{Begin, Remote};
use crate::shard::group::{RowGroup, check_rows};
use crate::write::encode::ShardSpec;
use crate::write::folder;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Tokens and keys of a row group stay below this, which leaves room for the other columns.
pub(crate) const GROUP_PAYLOAD_BYTES_MAX: usize = GROUP_BYTES_MAX - (4 << 20);

/// What to do with a cache or an unfinished job that is already in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenMode {
    /// Go on where the same job stopped; refuse another job's.
    #[default]
    Resume,
    /// Remove it and start again. Files that are not ours are never removed.
    Overwrite,
}

/// The outcome of a rank's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether the cache is published. If not, other ranks are still at work and the last one will publish it.
    pub published: bool,
    /// Rows: of the cache when it is published, else of this rank.
    pub rows: usize,
    /// Images with rows, likewise.
    pub images: usize,
    /// Images in quarantine, likewise.
    pub quarantined: usize,
    /// The cache's content hash when it is published.
    pub content_hash: Option<String>,
}

/// Writes one rank's part of a cache.
///
/// Every image of [`CacheWriter::images`] is either pushed or quarantined, in order, from [`CacheWriter::next_image`]
/// on; then [`CacheWriter::finish`]. Memory is bounded by `groups_per_shard + 2` row groups. Dropping a writer at any
/// moment is safe: what was durable stays, the rest is done again by the next run.
pub struct CacheWriter {
    pub(super) dir: PathBuf,
    pub(super) job: JobSpec,
    pub(super) identity: JobIdentity,
    pub(super) job_id: String,
    pub(super) images: Range<usize>,
    /// The next image to be pushed.
    pub(super) next: usize,
    /// Images below this one are in shards or parts.
    pub(super) durable: usize,
    pub(super) shards: Vec<ShardEntry>,
    /// Of this rank, in order, as far as durable.
    pub(super) quarantined: Vec<QuarantineRecord>,
    /// Row groups that are durable as parts but in no shard yet.
    pub(super) pending: Vec<RowGroup>,
    pub(super) current: RowGroup,
    /// The published cache, when there is nothing to do.
    pub(super) manifest: Option<Manifest>,
    pub(super) rank_lock: Option<Lock>,
    /// What this writer made of the folder, as opposed to an earlier one.
    pub(super) began: folder::Began,
    /// The bucket, if the cache lies in one: then `dir` is the working folder.
    pub(super) remote: Option<Remote>,
}

impl CacheWriter {
    /// Opens the cache in `dir`, a folder or a URL, for this rank of `job`, creating the folder if need be.
    ///
    /// A finished cache of the same job opens with [`CacheWriter::is_complete`]; an unfinished one goes on where it
    /// stopped, after its shards were verified.
    ///
    /// # Errors
    /// [`CacheError::InvalidJob`] and [`CacheError::InvalidGrid`]; [`CacheError::JobDiffers`] naming the field in which
    /// the folder's job differs; [`CacheError::FolderNotEmpty`] when it holds something else;
    /// [`CacheError::Locked`] when another process writes for this rank; the variant that names the damage when a
    /// finished shard is damaged; [`CacheError::Io`], [`CacheError::DiskFull`], [`CacheError::ReadOnly`].
    pub fn open(dir: &Path, job: JobSpec, mode: OpenMode) -> Result<CacheWriter, CacheError> {
        job.validate()?;
        let overwrite = mode == OpenMode::Overwrite;
        let remote = Remote::open(dir, &job, overwrite)?;
        let dir = remote.as_ref().map_or_else(|| dir.to_owned(), |remote| remote.folder().to_owned());
        let claim = claim(&dir, &job, overwrite, remote.as_ref())?;
        let identity = job.identity();
        let images = job.images();
        let mut writer = CacheWriter {
            remote,
            dir,
            job_id: identity.id(),
            identity,
            next: images.start,
            durable: images.start,
            shards: Vec::new(),
            quarantined: Vec::new(),
            pending: Vec::new(),
            current: RowGroup::starting_at(images.start, &job.splits),
            manifest: claim.manifest,
            rank_lock: claim.rank_lock,
            began: claim.began,
            images,
            job,
        };
        if writer.manifest.is_some() {
            writer.next = writer.images.end;
            writer.durable = writer.images.end;
        } else {
            writer.resume()?;
            writer.remote.as_ref().map_or(Ok(()), Remote::forget_stale)?;
        }
        Ok(writer)
    }

    /// Whether the cache is finished and published: there is nothing to do.
    pub fn is_complete(&self) -> bool {
        self.manifest.is_some()
    }

    /// The images of this rank: `rank * N / world_size .. (rank + 1) * N / world_size`.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// The first image that is not durable yet: where to continue after [`CacheWriter::open`].
    pub fn next_image(&self) -> usize {
        self.durable
    }

    /// Images of this rank that are in quarantine, those of earlier calls included.
    pub fn num_quarantined(&self) -> usize {
        let pending: usize = self.pending.iter().map(|group| group.quarantined.len()).sum();
        self.quarantined.len() + pending + self.current.quarantined.len()
    }

    /// The share in the content hash of the rows that are durable.
    pub(crate) fn durable_content(&self) -> ContentSum {
        let mut content = ContentSum::default();
        let finished = self.manifest.as_ref().map(|manifest| &manifest.content_hash);
        let sums = finished.into_iter().chain(self.shards.iter().map(|shard| &shard.content_sum));
        sums.filter_map(|sum| ContentSum::from_hex(sum)).for_each(|sum| content.add(sum));
        self.pending.iter().for_each(|group| content.add(group.content));
        content
    }

    /// Abandons a job of one process. If nothing of it is durable, what was made for it goes: its folder, too, unless it was
    /// there before.
    pub(crate) fn withdraw(mut self) {
        let is_empty = self.durable == self.images.start && self.shards.is_empty() && self.pending.is_empty();
        if self.rank_lock.is_some() && is_empty && self.job.world_size == 1 {
            folder::withdraw(&self.dir, self.began, self.rank_lock.take());
            if let Some(remote) = self.remote.take() {
                // That it stays is harmless: then it is an unfinished job without rows.
                let _ = remote.remove(&[Name::Job]);
                remote.leave();
            }
        }
    }

    /// Adds the rows of image `index`: all its views, in order.
    ///
    /// After an error nothing was added, and the same call may be tried again.
    ///
    /// # Errors
    /// [`CacheError::ImageOrder`], [`CacheError::InvalidRow`]; as [`CacheWriter::checkpoint`] where the row group before is
    /// written.
    pub fn push_image(&mut self, index: usize, rows: &[Row<'_>]) -> Result<(), CacheError> {
        self.check_order(index)?;
        check_rows(&self.job, index, rows)?;
        let key_bytes: usize = rows.iter().map(|row| row.key.len()).sum();
        self.make_room(index, rows.len(), rows.len() * (self.job.grid.row_bytes() + 64) + key_bytes)?;
        for row in rows {
            self.current.push(self.job.grid, row);
        }
        self.advance_past(index);
        Ok(())
    }

    /// Adds the counts of |h| of the image that was pushed last; they go into its shard's footer and the manifest.
    pub fn count_margins(&mut self, margins: &Margins) {
        self.current.margins.add(margins);
    }

    /// Records that image `index` has no rows, where it failed and why. Same order as [`CacheWriter::push_image`].
    ///
    /// # Errors
    /// [`CacheError::ImageOrder`]; as [`CacheWriter::checkpoint`] where the row group before is written.
    pub fn quarantine(&mut self, index: usize, key: &str, stage: &str, reason: &str) -> Result<(), CacheError> {
        self.check_order(index)?;
        self.make_room(index, 0, 0)?;
        let (key, stage, reason) = (key.to_owned(), stage.to_owned(), reason.to_owned());
        self.current.quarantined.push(QuarantineRecord { index, key, stage, reason });
        self.advance_past(index);
        Ok(())
    }

    /// Publishes what was pushed so far as a finished shard, however small: for an orderly stop (Ctrl-C).
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::DiskFull`], [`CacheError::ReadOnly`] and [`CacheError::Encode`] when the shard cannot be
    /// written; for a bucket [`CacheError::LeaseLost`] and [`CacheError::Store`]. What was pushed is kept, and the call may be
    /// tried again.
    pub fn checkpoint(&mut self) -> Result<(), CacheError> {
        self.seal(false)?;
        self.write_shard()
    }

    /// Ends this rank: writes the last shard and the rank's done-marker and, when all ranks are done, publishes the
    /// cache.
    ///
    /// # Errors
    /// [`CacheError::IncompleteRank`] when images are missing; otherwise as [`CacheWriter::checkpoint`].
    pub fn finish(mut self) -> Result<Finished, CacheError> {
        if let Some(manifest) = &self.manifest {
            let finished = Finished::published(manifest);
            if let Some(remote) = self.remote {
                remote.clean(manifest);
            }
            return Ok(finished);
        }
        if self.next != self.images.end {
            let (rank, next, end) = (self.job.rank, self.next, self.images.end);
            return Err(CacheError::IncompleteRank { rank, next, end });
        }
        self.checkpoint()?;
        self.publish()
    }

    fn check_order(&self, index: usize) -> Result<(), CacheError> {
        if index == self.next && index < self.images.end {
            return Ok(());
        }
        Err(CacheError::ImageOrder { expected: self.next, actual: index })
    }

    fn advance_past(&mut self, index: usize) {
        self.next = index + 1;
        self.current.images.end = self.next;
    }

    /// Closes the current row group if `rows` more rows, or one more record, would be too many, or if `image` begins a
    /// split.
    fn make_room(&mut self, image: usize, rows: usize, bytes: usize) -> Result<(), CacheError> {
        let held = self.current.rows();
        let too_many = held > 0 && held + rows > self.job.rows_per_group;
        let too_large = held > 0 && self.current.bytes_max() + bytes > GROUP_PAYLOAD_BYTES_MAX;
        // Images without rows fill no group; the records are bounded all the same.
        let too_long = self.current.quarantined.len() >= self.job.rows_per_group;
        let of_another_split =
            !self.current.is_empty() && self.current.split != Split::name_of(&self.job.splits, image);
        if too_many || too_large || too_long || of_another_split {
            self.seal(true)?;
        }
        if self.pending.len() >= self.job.groups_per_shard {
            self.write_shard()?;
        }
        Ok(())
    }

    /// Moves the current row group to the pending ones, as a part if it has to wait for others.
    fn seal(&mut self, may_wait: bool) -> Result<(), CacheError> {
        if self.current.is_empty() {
            return Ok(());
        }
        if may_wait && self.pending.len() + 1 < self.job.groups_per_shard {
            let name = Name::Part(self.job.rank, self.current.images.start);
            self.spec().write(&self.dir, name, std::slice::from_ref(&self.current))?;
            self.upload(name)?;
            self.durable = self.current.images.end;
        }
        let next = RowGroup::starting_at(self.next, &self.job.splits);
        self.pending.push(std::mem::replace(&mut self.current, next));
        Ok(())
    }

    /// Writes the pending row groups as the rank's next shard and removes their parts.
    fn write_shard(&mut self) -> Result<(), CacheError> {
        let Some(last) = self.pending.last() else {
            return Ok(());
        };
        let end = last.images.end;
        // `open` found at most u32::MAX shards, since their names have u32 numbers.
        let name = Name::Shard(self.job.rank, self.shards.len() as u32);
        let entry = self.spec().write(&self.dir, name, &self.pending)?;
        self.upload(name)?;
        self.shards.push(entry);
        self.durable = end;
        if let Some(remote) = &self.remote {
            let part = |group: &RowGroup| Name::Part(self.job.rank, group.images.start);
            remote.remove(&self.pending.iter().map(part).collect::<Vec<_>>())?;
        }
        for group in self.pending.drain(..) {
            self.quarantined.extend(group.quarantined);
            remove_if_present(&Name::Part(self.job.rank, group.images.start).path(&self.dir))?;
        }
        Ok(())
    }

    /// A finished file counts when it is where the cache lies.
    fn upload(&self, name: Name) -> Result<(), CacheError> {
        self.remote.as_ref().map_or(Ok(()), |remote| remote.upload(name))
    }

    fn spec(&self) -> ShardSpec<'_> {
        ShardSpec {
            job: &self.job,
            identity: &self.identity,
            job_id: &self.job_id,
            more_columns: MoreColumns { split: !self.job.splits.is_empty(), frames: holds_frames(&self.job.source) },
        }
    }
}

/// Claims the folder for the job; in a bucket, the job file that is there first counts.
fn claim(dir: &Path, job: &JobSpec, overwrite: bool, remote: Option<&Remote>) -> Result<folder::Claim, CacheError> {
    let Some(remote) = remote else { return folder::claim(dir, job, overwrite) };
    // What differs lies in the bucket.
    let in_bucket = |error| match error {
        CacheError::JobDiffers { field, found, wanted, .. } => {
            CacheError::JobDiffers { path: remote.url(), field, found, wanted }
        }
        error => error,
    };
    let claimed = folder::claim(dir, job, false).map_err(in_bucket)?;
    if claimed.manifest.is_some() {
        return Ok(claimed);
    }
    match remote.begin()? {
        Begin::Ours => Ok(claimed),
        Begin::Others => {
            drop(claimed);
            folder::claim(dir, job, false).map_err(in_bucket)
        }
    }
}

impl Finished {
    pub(super) fn published(manifest: &Manifest) -> Finished {
        Finished {
            published: true,
            rows: manifest.rows,
            images: manifest.images,
            quarantined: manifest.quarantine.images,
            content_hash: Some(manifest.content_hash.clone()),
        }
    }
}

impl fmt::Debug for CacheWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheWriter")
            .field("dir", &self.dir)
            .field("images", &self.images)
            .field("next", &self.next)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}
