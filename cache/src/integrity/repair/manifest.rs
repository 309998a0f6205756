//! A manifest that was lost or damaged, made again from the shards.

use crate::error::CacheError;
use crate::files::temporary::write_atomically;
use crate::format::hash::ContentSum;
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::manifest::{Manifest, ShardEntry, manifest_of};
use crate::format::names::{MANIFEST_FILE, Name, list_ours};
use crate::format::quarantine::{QuarantineRecord, quarantine_list};
use crate::shard::access::Access;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// The manifest, and whether it had to be made again. A `job` that is given must be the cache's.
pub(super) fn usable_manifest(dir: &Path, job: Option<&JobSpec>) -> Result<(Manifest, bool), CacheError> {
    let (manifest, rebuilt) = match Manifest::read(dir) {
        Ok(manifest) => (manifest, false),
        Err(
            CacheError::ManifestSyntax { .. }
            | CacheError::ManifestChecksum { .. }
            | CacheError::ManifestField { .. }
            | CacheError::NotACache { .. },
        ) => (rebuild(dir, job)?, true),
        Err(error) => return Err(error),
    };
    if let Some(job) = job
        && let Some((field, found, wanted)) = manifest.identity().first_difference(&job.identity())
    {
        return Err(CacheError::JobDiffers { path: dir.into(), field, found, wanted });
    }
    Ok((manifest, rebuilt))
}

/// Every shard must be there and intact: without a manifest, what a missing one held is unknown.
fn rebuild(dir: &Path, job: Option<&JobSpec>) -> Result<Manifest, CacheError> {
    let path = dir.join(MANIFEST_FILE);
    let refuse = |what: String| CacheError::NoManifest { path: path.clone(), what };
    let mut identity: Option<JobIdentity> = job.map(JobSpec::identity);
    let mut entries: Vec<ShardEntry> = Vec::new();
    let mut quarantined: Vec<QuarantineRecord> = Vec::new();
    for name in list_ours(dir)?.into_iter().filter(|name| matches!(name, Name::Shard(..))) {
        let shard = Shard::open(&name.path(dir), None)?;
        let identity = match &identity {
            Some(identity) => identity,
            None => identity.insert(shard.identity()?),
        };
        let grid = JobSpec::from_identity(identity.clone())?.grid;
        shard.check_belongs(&identity.id(), grid, identity.views)?;
        entries.push(verified_entry(&shard, name, identity)?);
        quarantined.extend(shard.footer.quarantined);
    }
    let identity = identity.ok_or_else(|| refuse("there is no shard".to_owned()))?;
    entries.sort_by_key(|entry| entry.images);
    let mut next = 0;
    for entry in &entries {
        if entry.images[0] != next {
            return Err(refuse(format!("no shard has image {next}")));
        }
        next = entry.images[1];
    }
    if next != identity.source.images {
        return Err(refuse(format!("no shard has image {next}")));
    }
    quarantined.sort_by_key(|record| record.index);
    let manifest = manifest_of(identity, entries, quarantined.len(), &quarantine_list(&quarantined));
    let text = manifest.to_text(&path)?;
    write_atomically(Name::Temp(None).path(dir), &path, text.as_bytes())?;
    Manifest::read(dir)
}

/// The entry of a shard whose every column is what its footer says.
fn verified_entry(shard: &Shard, name: Name, identity: &JobIdentity) -> Result<ShardEntry, CacheError> {
    let bytes: Arc<Bytes> = shard.load(Access::Map)?;
    let mut content = ContentSum::default();
    for group in 0..shard.num_groups() {
        shard.verify_group(&bytes, group)?;
        shard.row_hashes(&bytes, group, &identity.splits)?.iter().for_each(|hash| content.add_row(hash));
    }
    if content != shard.footer.content {
        let (expected, actual) = (shard.footer.content.to_hex(), content.to_hex());
        return Err(CacheError::ContentHash { path: shard.path.clone(), expected, actual });
    }
    Ok(shard.describe(&name.to_text(), &bytes))
}
