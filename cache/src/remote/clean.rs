//! Leftovers of killed jobs in a bucket: files beside a finished cache, unfinished jobs, unfinished uploads.

use super::lease::is_held;
use super::staged::read_manifest;
use crate::error::CacheError;
use crate::format::names::{Name, parse_name};
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;
use tokengrid_store::{Bucket, Place};

/// What [`clean_bucket`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cleaned {
    /// Objects that were removed.
    pub objects: usize,
    /// Size of these objects together, in bytes.
    pub bytes: u64,
    /// Unfinished multipart uploads that were aborted.
    pub uploads: usize,
}

/// Removes what no reader of the cache at `url` needs: leftovers beside a finished cache, and uploads that were not finished. An
/// unfinished job stays, unless `unfinished` says that it will not be continued.
///
/// # Errors
/// [`CacheError::Leased`] while another process writes there; [`CacheError::NotACache`] where there is neither a cache nor a job;
/// [`CacheError::Store`].
pub fn clean_bucket(url: &Path, unfinished: bool) -> Result<Cleaned, CacheError> {
    let Some(place) = Place::parse(url)? else { return Err(CacheError::NotACache { path: url.to_owned() }) };
    let bucket = Bucket::of(&place)?;
    let prefix = place.prefix();
    let objects = bucket.list(place.key())?;
    let named = |key: &str| parse_name(key.strip_prefix(&prefix).unwrap_or(key));
    let ours: Vec<_> = objects.iter().filter_map(|object| Some((named(&object.key)?, object))).collect();
    let has = |wanted: Name| ours.iter().any(|(name, _)| *name == wanted);
    let uploads_only = !has(Name::Manifest) && !unfinished;
    for (name, lease) in &ours {
        if matches!(name, Name::Lease(_)) && is_held(&bucket, &lease.key)? {
            let (path, holder) = (bucket.place(&lease.key).to_string().into(), "a process".to_owned());
            return Err(CacheError::Leased { path, holder });
        }
    }
    let listed: HashSet<String> = match has(Name::Manifest) {
        true => read_manifest(url, &place, &bucket)?.0.shards.into_iter().map(|shard| shard.file).collect(),
        false => HashSet::new(),
    };
    let is_needed = |name: &Name| match name {
        _ if uploads_only => true,
        Name::Manifest => true,
        Name::Quarantine => has(Name::Manifest),
        Name::Shard(..) => listed.contains(&name.to_text()),
        _ => false,
    };
    let doomed: Vec<_> = ours.iter().filter(|(name, _)| !is_needed(name)).collect();
    let keys: Vec<String> = doomed.iter().map(|(_, object)| object.key.clone()).collect();
    bucket.delete(&keys)?;
    let bytes = doomed.iter().map(|(_, object)| object.bytes).sum();
    Ok(Cleaned { objects: keys.len(), bytes, uploads: bucket.abort_uploads(place.key())? })
}
