//! One damaged shard: intact row groups are kept, the others encoded again.

use crate::error::CacheError;
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::manifest::{Manifest, ShardEntry};
use crate::format::names::{Name, parse_shard_name};
use crate::format::quarantine::{QuarantineReader, QuarantineRecord};
use crate::format::schema::{MoreColumns, TOKENS};
use crate::integrity::repair::report::{Encode, Encoded, RepairReport};
use crate::shard::access::Access;
use crate::shard::group::{RowGroup, check_rows};
use crate::shard::open::Shard;
use crate::write::encode::ShardSpec;
use std::fs;
use std::ops::Range;
use std::path::Path;

pub(super) struct ShardRepair<'a> {
    pub(super) dir: &'a Path,
    pub(super) job: JobSpec,
    pub(super) identity: JobIdentity,
    pub(super) manifest: &'a Manifest,
}

impl ShardRepair<'_> {
    /// Writes the shard again. `damaged` are its row groups that are not what was written; with `None` among them, page
    /// index and footer, without which no row group can be read.
    pub(super) fn repair(
        &self,
        entry: &ShardEntry,
        damaged: &[Option<usize>],
        encode: &mut Encode<'_>,
        report: &mut RepairReport,
    ) -> Result<(), CacheError> {
        let path = self.dir.join(&entry.file);
        // The footer is intact unless it is listed, and says itself which of its images have no rows.
        let shard = if damaged.contains(&None) { None } else { Some(Shard::open_damaged(&path, entry)?) };
        let bytes = shard.as_ref().map(|shard| shard.load(Access::Copy)).transpose()?;
        let known = match &shard {
            Some(shard) => Some(shard.footer.quarantined.clone()),
            None => self.listed_quarantine(entry),
        };
        let mut groups = Vec::with_capacity(entry.row_groups.len());
        for (images, index) in pieces(entry) {
            match (&shard, &bytes, index) {
                (Some(shard), Some(bytes), Some(group)) if !damaged.contains(&Some(group)) => {
                    groups.push(shard.read_group(bytes, group, &self.job.splits)?);
                }
                _ => {
                    let group = self.encode_group(images, known.as_deref(), encode)?;
                    report.row_groups_encoded += usize::from(group.rows() > 0);
                    report.images_encoded += group.rows() / self.job.num_views as usize;
                    groups.push(group);
                }
            }
        }
        // Kept by shard, and not to be had from tokens: the manifest's are those that were written.
        if let Some(first) = groups.first_mut() {
            first.margins = entry.margins;
        }
        let name = parse_shard_name(&entry.file).map(|(rank, number)| Name::Shard(rank, number));
        let (told, found) = (entry.more_columns(), shard.as_ref().map(Shard::more_columns).unwrap_or_default());
        let more_columns = MoreColumns { split: told.split || found.split, frames: told.frames || found.frames };
        let spec = ShardSpec { job: &self.job, identity: &self.identity, job_id: &self.manifest.job, more_columns };
        // The manifest's check has established that the name is a shard's.
        let name = name.unwrap_or(Name::Shard(0, 0));
        spec.write_if(self.dir, name, &groups, |temp, written| match same_file(written, entry) {
            true => Ok(()),
            false => Err(CacheError::RepairDiffers { path: path.clone(), what: difference(&path, temp, entry) }),
        })?;
        report.shards.push(entry.file.clone());
        Ok(())
    }

    /// The shard's images without rows by the cache's list, where that is intact.
    fn listed_quarantine(&self, entry: &ShardEntry) -> Option<Vec<QuarantineRecord>> {
        let [start, end] = entry.images;
        let is_of_shard = |record: &QuarantineRecord| (start..end).contains(&record.index);
        let records = QuarantineReader::open(self.dir, self.manifest).ok()?;
        records.filter(|record| record.as_ref().map_or(true, is_of_shard)).collect::<Result<_, _>>().ok()
    }

    /// The rows of images that are encoded again.
    fn encode_group(
        &self,
        images: Range<usize>,
        known: Option<&[QuarantineRecord]>,
        encode: &mut Encode<'_>,
    ) -> Result<RowGroup, CacheError> {
        let mut group = RowGroup::starting_at(images.start, &self.job.splits);
        group.images.end = images.end;
        let in_group = |record: &&QuarantineRecord| images.contains(&record.index);
        group.quarantined = known.into_iter().flatten().filter(in_group).cloned().collect();
        let is_known = |image: &usize| group.quarantined.iter().any(|record| record.index == *image);
        let wanted: Vec<usize> = images.clone().filter(|image| !is_known(image)).collect();
        if wanted.is_empty() {
            return Ok(group);
        }
        let mut next = wanted.iter();
        encode(&wanted, &mut |image, encoded| {
            let expected = *next.next().unwrap_or(&images.end);
            if image != expected {
                return Err(CacheError::ImageOrder { expected, actual: image });
            }
            match encoded {
                Encoded::Quarantined(record) => group.quarantined.push(record),
                Encoded::Rows(rows) => {
                    check_rows(&self.job, image, rows)?;
                    rows.iter().for_each(|row| group.push(self.job.grid, row));
                }
            }
            Ok(())
        })
        .map_err(|source| match source.downcast::<CacheError>() {
            Ok(error) => *error,
            Err(source) => CacheError::Encoder { source },
        })?;
        match next.next() {
            Some(image) => Err(CacheError::NotEncoded { image: *image }),
            None => Ok(group),
        }
    }
}

/// Whether a shard is what the manifest vouches for. That it has a column which the manifest does not mention is no
/// difference: the file's checksum covers it.
fn same_file(written: &ShardEntry, entry: &ShardEntry) -> bool {
    *written == ShardEntry { more_columns: written.more_columns.clone(), ..entry.clone() }
}

/// The ranges of images that a shard was written from, and the row group of each; `None` for images between row groups,
/// none of which has rows.
fn pieces(entry: &ShardEntry) -> Vec<(Range<usize>, Option<usize>)> {
    let [start, end] = entry.images;
    let mut pieces = Vec::new();
    let mut next = start;
    for (index, group) in entry.row_groups.iter().enumerate() {
        let [from, to] = group.images;
        if next < from {
            pieces.push((next..from, None));
        }
        pieces.push((from..to, Some(index)));
        next = to;
    }
    if next < end || pieces.is_empty() {
        pieces.push((next..end, None));
    }
    pieces
}

/// How the shard that was written again differs from the one that is there: the first row whose grid does, or the
/// columns.
fn difference(there: &Path, again: &Path, entry: &ShardEntry) -> String {
    let Ok(shard) = Shard::open(again, None) else {
        return "it cannot be read back".to_owned();
    };
    let (Ok(old), Ok(new)) = (fs::read(there), fs::read(again)) else {
        return "the rows of a missing shard".to_owned();
    };
    let row_bytes = shard.footer.grid.row_bytes();
    let mut row = 0;
    for group in 0..shard.num_groups() {
        let (Ok(bytes), range) = (shard.load(Access::Map), shard.token_range(group)) else {
            break;
        };
        let grids = new[range.clone()].chunks_exact(row_bytes);
        let olds = old.get(range).unwrap_or_default().chunks_exact(row_bytes);
        let differing: Vec<usize> = grids.zip(olds).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
        if let Some(first) = differing.first() {
            let key = shard.row_metas(&bytes, group, *first..first + 1).ok().and_then(|mut metas| metas.pop());
            let (rows, key) = (differing.len(), key.map_or_else(String::new, |meta| meta.key));
            return format!("row {} of the shard, {key}; {rows} grids of row group {group} differ", row + first);
        }
        row += shard.group_rows(group);
    }
    let others: Vec<_> = shard.known_columns().filter(|column| *column != TOKENS).collect();
    format!("no grid differs: one of the columns {} does ({} rows)", others.join(", "), entry.rows)
}
