//! The end of a rank, and of the job.

use crate::error::CacheError;
use crate::files::lock::Lock;
use crate::files::small::{is_missing, read_at_most};
use crate::files::temporary::write_atomically;
use crate::format::job_file::MANIFEST_BYTES_MAX;
use crate::format::manifest::{Manifest, ShardEntry, manifest_of};
use crate::format::names::{MANIFEST_FILE, Name};
use crate::format::quarantine::{QuarantineRecord, quarantine_list};
use crate::lookup::write::write_for_new;
use crate::write::folder::remove_leftovers;
use crate::write::writer::{CacheWriter, Finished};
use serde::{Deserialize, Serialize};
use std::fs;

/// The done-marker of a rank: its shards are final.
#[derive(Serialize, Deserialize)]
struct DoneFile {
    job: String,
    shards: Vec<ShardEntry>,
    quarantined: Vec<QuarantineRecord>,
}

impl CacheWriter {
    /// Leaves this rank's done-marker and publishes the cache if it was the last one.
    ///
    /// Under the folder's lock, so that whichever rank comes last sees all markers, and only one publishes.
    pub(super) fn publish(mut self) -> Result<Finished, CacheError> {
        let rows = self.shards.iter().map(|shard| shard.rows).sum();
        let (images, quarantined) = (rows / self.job.num_views as usize, self.quarantined.len());
        let _folder = Lock::wait(&Name::FolderLock.path(&self.dir))?;
        let published = match self.published_by_another()? {
            Some(manifest) => Some(manifest),
            None => {
                self.write_done()?;
                self.publish_or_see()?
            }
        };
        let Some(manifest) = published else {
            if let Some(remote) = self.remote {
                remote.leave();
            }
            return Ok(Finished { published: false, rows, images, quarantined, content_hash: None });
        };
        self.rank_lock = None; // so that its file can go with the rest
        match self.remote {
            Some(remote) => remote.clean(&manifest),
            None => {
                remove_leftovers(&self.dir);
                write_for_new(&self.dir, &manifest);
            }
        }
        Ok(Finished::published(&manifest))
    }

    fn write_done(&mut self) -> Result<(), CacheError> {
        let done = DoneFile {
            job: self.job_id.clone(),
            shards: std::mem::take(&mut self.shards),
            quarantined: std::mem::take(&mut self.quarantined),
        };
        let path = Name::Done(self.job.rank).path(&self.dir);
        let syntax = |source| CacheError::ManifestSyntax { path: path.clone(), source };
        let text = serde_json::to_vec(&done).map_err(syntax)?;
        write_atomically(Name::Temp(Some(self.job.rank)).path(&self.dir), &path, &text)?;
        let Some(remote) = &self.remote else { return Ok(()) };
        remote.upload(Name::Done(self.job.rank))?;
        remote.pull_markers()
    }

    /// In a bucket no lock keeps two last ranks apart: the other one may publish, and remove the markers, at any moment.
    fn publish_or_see(&self) -> Result<Option<Manifest>, CacheError> {
        let Some(remote) = &self.remote else { return self.publish_if_last() };
        if let Some(manifest) = self.published_by_another()? {
            return Ok(Some(manifest));
        }
        match self.publish_if_last()? {
            Some(manifest) => Ok(Some(manifest)),
            None => {
                remote.pull_markers()?;
                self.published_by_another()
            }
        }
    }

    fn published_by_another(&self) -> Result<Option<Manifest>, CacheError> {
        if !Name::Manifest.path(&self.dir).exists() {
            return Ok(None);
        }
        Manifest::read(&self.dir).map(Some)
    }

    fn publish_if_last(&self) -> Result<Option<Manifest>, CacheError> {
        let mut shards = Vec::new();
        let mut quarantined = Vec::new();
        for rank in 0..self.job.world_size {
            let Some(done) = self.read_done(rank)? else {
                return Ok(None);
            };
            shards.extend(done.shards);
            quarantined.extend(done.quarantined);
        }
        let temp = || Name::Temp(None).path(&self.dir);
        let list = quarantine_list(&quarantined);
        write_atomically(temp(), &Name::Quarantine.path(&self.dir), list.as_bytes())?;
        let path = self.dir.join(MANIFEST_FILE);
        let text = manifest_of(self.identity.clone(), shards, quarantined.len(), &list).to_text(&path)?;
        write_atomically(temp(), &path, text.as_bytes())?;
        // What was written is read with all its checks, among them that the ranks' parts fit together.
        let manifest = Manifest::read(&self.dir).inspect_err(|_| _ = fs::remove_file(&path))?;
        if let Some(remote) = &self.remote {
            remote.publish(&manifest)?;
        }
        Ok(Some(manifest))
    }

    /// The marker of a rank of this job; `None` while it is at work.
    fn read_done(&self, rank: u32) -> Result<Option<DoneFile>, CacheError> {
        let path = Name::Done(rank).path(&self.dir);
        let text = match read_at_most(&path, MANIFEST_BYTES_MAX) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let done: DoneFile = serde_json::from_slice(&text)
            .map_err(|source| CacheError::ManifestSyntax { path: path.clone(), source })?;
        if done.job == self.job_id {
            return Ok(Some(done));
        }
        Err(CacheError::ForeignShard { path, field: "job", expected: self.job_id.clone(), actual: done.job })
    }
}
