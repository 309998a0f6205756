//! Do the parts of a manifest fit each other.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::hash::ContentSum;
use crate::format::manifest::{GroupEntry, Manifest, ShardEntry};
use crate::format::signature::field_error;
use crate::format::split::{Split, check_splits};
use std::collections::BTreeSet;
use std::path::Path;

impl Manifest {
    /// Checks that the parts fit each other, so that later code may rely on them.
    pub(super) fn check(&self, path: &Path) -> Result<(), CacheError> {
        GridSpec::parse(&self.grid, self.bits)
            .map_err(|_| field_error(path, "grid", "HEIGHTxWIDTH within bounds".into(), self.grid.clone()))?;
        let expect = |field, expected: usize, actual: usize| {
            if expected == actual {
                return Ok(());
            }
            Err(field_error(path, field, expected.to_string(), actual.to_string()))
        };
        if self.views == 0 {
            return Err(field_error(path, "views", "at least 1".into(), "0".into()));
        }
        expect("rows", self.images.saturating_mul(self.views as usize), self.rows)?;
        expect("source.images", self.images.saturating_add(self.quarantine.images), self.source.images)?;
        check_splits(&self.splits, self.source.images)
            .map_err(|actual| field_error(path, "splits", "named ranges that tile the images".into(), actual))?;
        let mut names = BTreeSet::new();
        let (mut rows, mut next_image, mut content) = (0usize, 0, ContentSum::default());
        for shard in &self.shards {
            shard.check(path)?;
            self.check_groups_in_splits(path, shard)?;
            if !names.insert(&shard.file) {
                return Err(field_error(path, "shards.file", "each shard once".into(), shard.file.clone()));
            }
            expect("shards.images", next_image, shard.images[0])?;
            next_image = shard.images[1];
            rows = rows.saturating_add(shard.rows);
            content.add(ContentSum::from_hex(&shard.content_sum).unwrap_or_default());
        }
        expect("shards.images", self.source.images, next_image)?;
        expect("rows", rows, self.rows)?;
        let job = self.identity().id();
        if job != self.job {
            return Err(field_error(path, "job", job, self.job.clone()));
        }
        if content.to_hex() != self.content_hash {
            return Err(field_error(path, "content_hash", content.to_hex(), self.content_hash.clone()));
        }
        Ok(())
    }

    fn check_groups_in_splits(&self, path: &Path, shard: &ShardEntry) -> Result<(), CacheError> {
        let straddles = |group: &&GroupEntry| {
            let [start, end] = group.images;
            start >= end || Split::name_of(&self.splits, start) != Split::name_of(&self.splits, end - 1)
        };
        match shard.row_groups.iter().find(straddles) {
            None => Ok(()),
            Some(group) => {
                let expected = format!("images of one split ({})", shard.file);
                Err(field_error(path, "shards.row_groups.images", expected, format!("{:?}", group.images)))
            }
        }
    }
}

impl ShardEntry {
    pub(super) fn check(&self, path: &Path) -> Result<(), CacheError> {
        let fail = |field, expected: &str, actual: String| {
            Err(field_error(path, field, format!("{expected} ({})", self.file), actual))
        };
        if crate::format::names::parse_shard_name(&self.file).is_none() {
            return fail("shards.file", "shard-<rank>-<number>.parquet", format!("{:?}", self.file));
        }
        if ContentSum::from_hex(&self.content_sum).is_none() {
            return fail("shards.content_sum", "64 hex digits", format!("{:?}", self.content_sum));
        }
        if self.images[0] > self.images[1] {
            return fail("shards.images", "[start, end]", format!("{:?}", self.images));
        }
        let mut next = 0u64;
        let mut rows = 0usize;
        for range in self.row_groups.iter().map(|group| &group.range).chain([&self.footer]) {
            if range.offset != next {
                return fail("shards.row_groups.offset", &next.to_string(), range.offset.to_string());
            }
            next = next.saturating_add(range.bytes);
        }
        for group in &self.row_groups {
            rows = rows.saturating_add(group.rows);
        }
        if next != self.bytes {
            return fail("shards.bytes", &next.to_string(), self.bytes.to_string());
        }
        if rows != self.rows {
            return fail("shards.rows", &rows.to_string(), self.rows.to_string());
        }
        Ok(())
    }
}
