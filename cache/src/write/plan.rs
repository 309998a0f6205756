//! What a job will write, before anything is written.

use crate::error::CacheError;
use crate::format::job::JobSpec;
use crate::lookup::write::INDEX_IMAGES_MIN;
use crate::write::writer::GROUP_PAYLOAD_BYTES_MAX;
use serde::Serialize;

/// What a job writes and needs. Rows and files are exact when no image turns out to be bad; bytes are within one percent
/// for jobs of at least a full row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JobPlan {
    /// Images of all ranks.
    pub images: usize,
    /// Rows of all ranks.
    pub rows: usize,
    /// Rows of a full row group.
    pub rows_per_group: usize,
    /// Row groups of all ranks.
    pub row_groups: usize,
    /// Shards of all ranks.
    pub shards: usize,
    /// Files of the finished cache: shards, manifest, quarantine list, and the index of keys of a large one.
    pub files: usize,
    /// Bytes of the finished cache, without the index of keys.
    pub bytes: u64,
    /// Bytes on disk at the worst moment: while a shard is written, its parts are still there.
    pub peak_bytes: u64,
    /// Memory that one rank's writer needs, in bytes.
    pub memory_bytes: u64,
}

impl JobPlan {
    /// The plan of `job`, all its ranks together. `keys` are those of the source in order, or some thousands of them in a
    /// row: how long they are, and how much of each is not that of the one before, decides what they take.
    ///
    /// # Errors
    /// [`CacheError::InvalidJob`] and [`CacheError::InvalidGrid`].
    ///
    /// ```
    /// use tokengrid_cache::{GridSpec, JobPlan, JobSpec};
    /// # fn main() -> Result<(), tokengrid_cache::CacheError> {
    /// let job = JobSpec::new(GridSpec { height: 16, width: 16, bits: 18 }, 1_281_167, 10);
    /// let keys: Vec<_> = (0..1000).map(|i| format!("n01440764/n01440764_{}.JPEG", i * 17)).collect();
    /// let plan = JobPlan::new(&job, keys.iter().map(String::as_str))?;
    /// assert_eq!((plan.rows, plan.shards), (12_811_670, 196));
    /// assert!(plan.bytes < 7_500_000_000);
    /// # Ok(()) }
    /// ```
    pub fn new<'a>(job: &JobSpec, keys: impl IntoIterator<Item = &'a str>) -> Result<JobPlan, CacheError> {
        job.validate()?;
        let (key_bytes, changing_key_bytes) = key_lengths(keys);
        let views = job.num_views as usize;
        let row_payload = job.grid.row_bytes() + 64 + key_bytes.ceil() as usize;
        let by_size = (GROUP_PAYLOAD_BYTES_MAX / row_payload / views).max(1);
        let images_per_group = (job.rows_per_group / views).clamp(1, by_size);
        let (mut row_groups, mut shards) = (0, 0);
        for rank in 0..job.world_size {
            let groups = groups_of_rank(&JobSpec { rank, ..job.clone() }, images_per_group);
            row_groups += groups;
            shards += groups.div_ceil(job.groups_per_shard);
        }
        let images = job.source.images;
        let rows = images * views;
        let rows_per_group = images_per_group * views;
        let row_bytes = stored_row_bytes(job, changing_key_bytes);
        let footer = footer_bytes(job, key_bytes);
        let bytes = rows as f64 * row_bytes + row_groups as f64 * footer.per_group + shards as f64 * footer.per_shard;
        let held = (job.groups_per_shard.min(row_groups) + 1) * rows_per_group.min(rows.max(1));
        let group_file = rows_per_group.min(rows) as f64 * row_bytes;
        let parts = group_file * (job.groups_per_shard.min(row_groups) as f64) * f64::from(job.world_size);
        Ok(JobPlan {
            images,
            rows,
            rows_per_group,
            row_groups,
            shards,
            files: shards + 2 + usize::from(images >= INDEX_IMAGES_MIN),
            bytes: bytes as u64,
            peak_bytes: (bytes + parts) as u64,
            // Packed grids and columns of what waits, and the encoder's copy of one row group, twice.
            memory_bytes: (held as f64 * (row_payload as f64 + 48.0) + 2.0 * group_file) as u64,
        })
    }
}

/// The mean length of the keys, and of the rest of each after the prefix that it shares with the one before.
fn key_lengths<'a>(keys: impl IntoIterator<Item = &'a str>) -> (f64, f64) {
    let (mut count, mut length, mut changing) = (0usize, 0, 0);
    let mut previous: &[u8] = &[];
    for key in keys {
        let key = key.as_bytes();
        count += 1;
        length += key.len();
        changing += key.len() - key.iter().zip(previous).take_while(|(a, b)| a == b).count();
        previous = key;
    }
    let mean = |sum: usize| sum as f64 / count.max(1) as f64;
    (mean(length), mean(changing))
}

fn groups_of_rank(job: &JobSpec, images_per_group: usize) -> usize {
    let images = job.images();
    let mut cuts = vec![images.start];
    let inside = |end: &usize| images.start < *end && *end < images.end;
    cuts.extend(job.splits.iter().map(|split| split.images[1]).filter(inside));
    cuts.push(images.end);
    cuts.windows(2).map(|cut| (cut[1] - cut[0]).div_ceil(images_per_group)).sum()
}

/// Bytes of a row in the columns: the grid; what the small columns take after encoding.
fn stored_row_bytes(job: &JobSpec, changing_key_bytes: f64) -> f64 {
    let views = f64::from(job.num_views);
    let view_bits = f64::from(32 - (job.num_views - 1).leading_zeros());
    // Labels run long in a sorted source; crops take up to 8 bits each where views differ; a flip takes one.
    let crop_bits = if job.num_views > 1 { 14.0 } else { 7.0 };
    job.grid.row_bytes() as f64 + (view_bits + crop_bits + 1.0) / 8.0 + (changing_key_bytes + 1.0) / views
}

struct FooterBytes {
    per_group: f64,
    per_shard: f64,
}

/// Metadata of Parquet and of ours, page indexes, and the entries of the manifest.
fn footer_bytes(job: &JobSpec, key_bytes: f64) -> FooterBytes {
    let identity = serde_json::to_string(&job.identity()).map_or(0, |text| text.len());
    FooterBytes { per_group: 2700.0 + 6.0 * key_bytes, per_shard: 1600.0 + identity as f64 }
}
