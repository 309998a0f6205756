//! Picking up what an earlier run of the same rank left behind.

use crate::error::CacheError;
use crate::files::small::remove_if_present;
use crate::format::manifest::ShardEntry;
use crate::format::names::{Name, list_ours};
use crate::shard::access::Access;
use crate::shard::group::RowGroup;
use crate::shard::open::Shard;
use crate::write::writer::CacheWriter;
use std::collections::BTreeSet;

impl CacheWriter {
    /// Verifies and adopts the finished shards and parts of this rank, and removes its temporary files.
    pub(super) fn resume(&mut self) -> Result<(), CacheError> {
        let rank = self.job.rank;
        let ours = list_ours(&self.dir)?;
        let number = |name: &Name| match name {
            Name::Shard(r, number) if *r == rank => Some(*number),
            _ => None,
        };
        let numbers: BTreeSet<u32> = ours.iter().filter_map(number).collect();
        for (expected, number) in numbers.into_iter().enumerate() {
            if number as usize != expected {
                let missing = Name::Shard(rank, expected as u32).path(&self.dir);
                return Err(CacheError::ShardGap { path: self.dir.clone(), missing, rank });
            }
            self.adopt_shard(Name::Shard(rank, number))?;
        }
        while self.adopt_part(&ours) {}
        let stale = ours.iter().filter(|name| match name {
            Name::Temp(Some(r)) | Name::Done(r) => *r == rank,
            Name::Part(r, image) => *r == rank && self.pending.iter().all(|group| group.images.start != *image),
            _ => false,
        });
        stale.into_iter().try_for_each(|name| remove_if_present(&name.path(&self.dir)))?;
        self.next = self.durable;
        self.current = RowGroup::starting_at(self.durable, &self.job.splits);
        Ok(())
    }

    /// Takes over a finished shard after verifying all of it: the manifest will vouch for it.
    fn adopt_shard(&mut self, name: Name) -> Result<(), CacheError> {
        let (shard, entry) = self.open_verified(name)?;
        let (start, end) = (self.durable, self.images.end);
        if entry.images[0] != start || entry.images[1] > end {
            return Err(CacheError::ForeignShard {
                path: shard.path,
                field: "images",
                expected: format!("{start}.. up to {end}"),
                actual: format!("{}..{}", entry.images[0], entry.images[1]),
            });
        }
        self.durable = entry.images[1];
        self.quarantined.extend(shard.footer.quarantined);
        self.shards.push(entry);
        Ok(())
    }

    /// Takes over the part that begins where durable rows end. A damaged one counts as missing.
    fn adopt_part(&mut self, ours: &[Name]) -> bool {
        let name = Name::Part(self.job.rank, self.durable);
        if !ours.contains(&name) {
            return false;
        }
        match self.read_part(name) {
            Ok(group) if group.images.start == self.durable && group.images.end <= self.images.end => {
                self.durable = group.images.end;
                self.pending.push(group);
                true
            }
            _ => false,
        }
    }

    fn read_part(&self, name: Name) -> Result<RowGroup, CacheError> {
        let (shard, _) = self.open_verified(name)?;
        let [start, end] = shard.footer.images;
        if shard.num_groups() == 0 {
            let mut group = RowGroup::starting_at(start, &self.job.splits);
            group.images.end = end;
            group.quarantined = shard.footer.quarantined;
            group.margins = shard.footer.margins;
            return Ok(group);
        }
        let mut group = shard.read_group(&shard.load(Access::Map)?, 0, &self.job.splits)?;
        if group.content != shard.footer.content {
            let (expected, actual) = (shard.footer.content.to_hex(), group.content.to_hex());
            return Err(CacheError::ContentHash { path: shard.path, expected, actual });
        }
        group.images = start..end;
        group.margins = shard.footer.margins;
        Ok(group)
    }

    fn open_verified(&self, name: Name) -> Result<(Shard, ShardEntry), CacheError> {
        let shard = Shard::open(&name.path(&self.dir), None)?;
        shard.check_belongs(&self.job_id, self.job.grid, self.job.num_views)?;
        let bytes = shard.load(Access::Map)?;
        for group in 0..shard.num_groups() {
            shard.verify_group(&bytes, group)?;
        }
        let entry = shard.describe(&name.to_text(), &bytes);
        Ok((shard, entry))
    }
}
