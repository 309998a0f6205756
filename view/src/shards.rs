//! The cache's files while they are mapped: where rows lie in them, whether they are still as long as they were, and which
//! row groups are known to be damaged.

use crate::lock::lock;
use crate::reply::{Refusal, with_causes};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use tokengrid_cache::{Manifest, TokenCache, VerifyReport};

/// A shard by its place in the manifest, and a row group of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupPosition {
    pub(crate) shard: usize,
    pub(crate) row_group: usize,
}

/// The shards of a cache.
#[derive(Debug)]
pub(crate) struct Shards {
    /// Of each shard: file name, bytes.
    files: Vec<(String, u64)>,
    /// Of each row group, in row order: the row after its last one.
    groups: Vec<(usize, GroupPosition)>,
    /// What the checks of row groups found: nothing, or what is wrong.
    checked: Mutex<BTreeMap<GroupPosition, Option<String>>>,
}

impl Shards {
    pub(crate) fn new(manifest: &Manifest) -> Shards {
        let files = manifest.shards.iter().map(|shard| (shard.file.clone(), shard.bytes)).collect();
        let mut end = 0;
        let mut groups = Vec::new();
        for (shard, entry) in manifest.shards.iter().enumerate() {
            for (row_group, group) in entry.row_groups.iter().enumerate() {
                end += group.rows;
                groups.push((end, GroupPosition { shard, row_group }));
            }
        }
        Shards { files, groups, checked: Mutex::default() }
    }

    /// Where a row of the cache lies.
    ///
    /// # Panics
    /// When the cache has no such row.
    pub(crate) fn place(&self, row: usize) -> GroupPosition {
        self.groups[self.groups.partition_point(|(end, _)| *end <= row)].1
    }

    /// The file of a shard.
    pub(crate) fn file(&self, shard: usize) -> &str {
        &self.files[shard].0
    }

    /// Refuses rows of files that were cut since they were mapped: reading the lost part would end the program (`SIGBUS`).
    /// A file that is cut at the very moment of reading is not found by this.
    pub(crate) fn check_lengths(&self, cache: &TokenCache, shards: Range<usize>) -> Result<(), Refusal> {
        for (file, expected) in &self.files[shards] {
            let path = cache.local_dir().join(file);
            let actual = match std::fs::metadata(&path) {
                Ok(found) if found.len() == *expected => continue,
                Ok(found) => format!("has {} bytes, expected {expected}", found.len()),
                Err(error) => format!("cannot be looked at ({error})"),
            };
            let text = format!(
                "{} {actual}: it was changed after `view` had opened it; `tokengrid cache verify` names what is damaged, \
                 `tokengrid cache repair` encodes it again; then start `view` again",
                path.display()
            );
            return Err(Refusal::Unavailable(text));
        }
        Ok(())
    }

    /// Refuses what was read of rows of a shard that was cut while it was being read: zeros may be in it.
    pub(crate) fn check_lost(&self, cache: &TokenCache, rows: &[usize]) -> Result<(), Refusal> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        self.check_lost_of(cache, self.place(*first).shard..self.place(*last).shard + 1)
    }

    /// [`Shards::check_lost`] of all of them.
    pub(crate) fn check_all_lost(&self, cache: &TokenCache) -> Result<(), Refusal> {
        self.check_lost_of(cache, 0..self.files.len())
    }

    fn check_lost_of(&self, cache: &TokenCache, shards: Range<usize>) -> Result<(), Refusal> {
        let files = &self.files[shards];
        let is_among = |lost: &&Path| files.iter().any(|(file, _)| lost.ends_with(file));
        match cache.lost_shards().find(is_among) {
            Some(lost) => Err(Refusal::Unavailable(format!(
                "{} was cut while `view` had it open; start `view` again when `tokengrid cache verify` finds it whole",
                lost.display()
            ))),
            None => Ok(()),
        }
    }

    /// [`Shards::check_lengths`] of all of them.
    pub(crate) fn check_all_lengths(&self, cache: &TokenCache) -> Result<(), Refusal> {
        self.check_lengths(cache, 0..self.files.len())
    }

    /// [`Shards::check_lengths`] of the shards of some rows in ascending order.
    pub(crate) fn check_lengths_of(&self, cache: &TokenCache, rows: &[usize]) -> Result<(), Refusal> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        self.check_lengths(cache, self.place(*first).shard..self.place(*last).shard + 1)
    }

    /// What is wrong with a row group, as far as `health`, the last check of everything, or a check of the group itself
    /// found it.
    pub(crate) fn known_damage(&self, group: GroupPosition, health: Option<&VerifyReport>) -> Option<String> {
        let is_here = |problem: &&tokengrid_cache::Problem| {
            problem.shard == self.file(group.shard)
                && problem.row_group.is_none_or(|row_group| row_group == group.row_group)
        };
        let reported = health.and_then(|report| report.problems.iter().find(is_here));
        let checked = || self.checked().get(&group).cloned().flatten();
        reported.map(|problem| problem.what.clone()).or_else(checked)
    }

    /// What is wrong with the row group of a row: compares the checksums of all its columns, once.
    pub(crate) fn damage(&self, cache: &TokenCache, row: usize) -> Option<String> {
        let group = self.place(row);
        if let Some(known) = self.checked().get(&group) {
            return known.clone();
        }
        let image = row / cache.num_views();
        // Visiting one image verifies its row group.
        let checked = cache.visit_images(image..image + 1, &|_| true, &mut |_, _| Ok(()));
        if let Err(lost) = self.check_lost(cache, &[row]) {
            return Some(lost.text().to_owned());
        }
        let damage = checked.err().map(|error| with_causes(&error));
        self.checked().insert(group, damage.clone());
        damage
    }

    fn checked(&self) -> MutexGuard<'_, BTreeMap<GroupPosition, Option<String>>> {
        lock(&self.checked)
    }
}
