//! The file that marks an unfinished job and says which.

use crate::error::CacheError;
use crate::files::small::read_at_most;
use crate::files::temporary::write_atomically;
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::names::{Name, list_ours};
use crate::format::schema::{FORMAT, FORMAT_VERSION};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A bound on what is read into memory: some 300,000 row groups.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// The unfinished job of a folder.
#[derive(Serialize, Deserialize)]
pub(crate) struct JobFile {
    pub(crate) format: String,
    pub(crate) format_version: u32,
    pub(crate) world_size: u32,
    pub(crate) job: JobIdentity,
}

/// Why a folder has no manifest.
pub(crate) fn no_manifest(dir: &Path) -> CacheError {
    let Ok(ours) = list_ours(dir) else {
        return CacheError::NotACache { path: dir.into() };
    };
    if !ours.contains(&Name::Job) {
        return CacheError::NotACache { path: dir.into() };
    }
    let expected = read_job(dir).ok().flatten().map_or(1, |job| job.world_size as usize);
    let is_left = |rank: &u32| !ours.contains(&Name::Done(*rank));
    let left: Vec<u32> = (0..expected as u32).filter(is_left).collect();
    CacheError::Unfinished { path: dir.into(), done: expected - left.len(), expected, advice: advice(&left, expected) }
}

/// How an unfinished job is finished: a rank that is never run again stays unfinished for ever.
fn advice(left: &[u32], expected: usize) -> String {
    const LISTED: usize = 8;
    if expected <= 1 {
        return "run the command that writes it again to finish it".to_owned();
    }
    let listed: Vec<String> = left.iter().take(LISTED).map(u32::to_string).collect();
    let more = if left.len() > LISTED { format!(" and {} more", left.len() - LISTED) } else { String::new() };
    let (ranks, each) = match left.len() {
        0 => return "run the command of any rank again to publish it".to_owned(),
        1 => ("rank", "it"),
        _ => ("ranks", "each of them"),
    };
    let listed = listed.join(", ");
    format!(
        "{ranks} {listed}{more} must still be run: the command that writes it, with --rank for {each} and --world-size \
         {expected}; or start again as one process with --overwrite"
    )
}

pub(crate) fn read_job(dir: &Path) -> Result<Option<JobFile>, CacheError> {
    let path = Name::Job.path(dir);
    if !path.exists() {
        return Ok(None);
    }
    let text = read_at_most(&path, MANIFEST_BYTES_MAX)?;
    serde_json::from_slice(&text).map(Some).map_err(|source| CacheError::ManifestSyntax { path, source })
}

pub(crate) fn write_job(dir: &Path, job: &JobSpec) -> Result<(), CacheError> {
    let path = Name::Job.path(dir);
    let file = JobFile {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        world_size: job.world_size,
        job: job.identity(),
    };
    let text =
        serde_json::to_vec_pretty(&file).map_err(|source| CacheError::ManifestSyntax { path: path.clone(), source })?;
    write_atomically(Name::Temp(None).path(dir), &path, &text)
}
