//! A job as Python describes it, in JSON.

use serde::Deserialize;
use serde_json::Value;
use tokengrid_cache::{GridSpec, JobSpec, SourceInfo, Split, TokenizerInfo};

/// Everything that decides what a cache contains, under the names of [`JobSpec`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    grid: (u32, u32),
    bits: u32,
    images: usize,
    views: u32,
    tokenizer: TokenizerInfo,
    recipe: Value,
    source: (String, String),
    excluded: usize,
    classes: Vec<String>,
    splits: Vec<(String, usize, usize)>,
    rank: u32,
    world_size: u32,
    rows_per_group: usize,
    groups_per_shard: usize,
}

impl From<Job> for JobSpec {
    fn from(job: Job) -> JobSpec {
        let (height, width) = job.grid;
        let (kind, location) = job.source;
        let split = |(name, start, end)| Split { name, images: [start, end] };
        JobSpec {
            tokenizer: job.tokenizer,
            recipe: job.recipe,
            source: SourceInfo { kind, location, images: job.images, excluded: job.excluded, ..SourceInfo::default() },
            classes: job.classes,
            splits: job.splits.into_iter().map(split).collect(),
            rank: job.rank,
            world_size: job.world_size,
            rows_per_group: job.rows_per_group,
            groups_per_shard: job.groups_per_shard,
            ..JobSpec::new(GridSpec { height, width, bits: job.bits }, job.images, job.views)
        }
    }
}
