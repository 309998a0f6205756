//! What is read before the first row: footers and labels, all at once.

use super::shard::RemoteShard;
use crate::error::CacheError;
use crate::format::manifest::{Manifest, ShardEntry};
use crate::format::schema::LABEL;
use crate::remote::ranges::with_holes;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;
use tokengrid_store::{Bucket, Fetch, Object, Place, Scheme, StoreError};

/// What was read.
pub(super) struct Found {
    pub(super) shards: Vec<RemoteShard>,
    /// One per image.
    pub(super) labels: Vec<i32>,
}

/// Reads footers and labels of all shards, and compares them with their checksums.
pub(super) fn read(dir: &Path, place: &Place, bucket: &Bucket, manifest: &Manifest) -> Result<Found, CacheError> {
    let objects = objects_of(dir, place, bucket, manifest)?;
    let fetch = |object: &Object, range: std::ops::Range<u64>| bucket.fetch(&object.key, range, object.tag.as_deref());
    let footers = manifest.shards.iter().zip(&objects);
    let footers = footers.map(|(entry, object)| fetch(object, entry.footer.offset..entry.bytes));
    let footers: Vec<Fetch> = footers.collect::<Result<_, _>>()?;
    let mut shards = Vec::with_capacity(objects.len());
    for (entry, footer) in manifest.shards.iter().zip(footers) {
        let shard = Shard::from_tail(&dir.join(&entry.file), entry, &footer.wait().map_err(missing(dir, entry))?)?;
        shard.check_belongs(&manifest.job, manifest.grid_spec(), manifest.views)?;
        shard.check_entry(entry)?;
        shards.push(shard);
    }
    let mut chunks = Vec::with_capacity(shards.len());
    for (shard, object) in shards.iter().zip(&objects) {
        let groups = (0..shard.num_groups()).map(|group| fetch(object, shard.column_range(group, LABEL)));
        chunks.push(groups.collect::<Result<Vec<Fetch>, _>>()?);
    }
    let mut labels = Vec::with_capacity(manifest.images);
    for ((shard, groups), entry) in shards.iter().zip(chunks).zip(&manifest.shards) {
        let groups = groups.into_iter().map(|group| group.wait().map_err(missing(dir, entry)));
        push_labels(shard, &groups.collect::<Result<Vec<_>, _>>()?, &mut labels)?;
    }
    let shards = shards.iter().zip(objects).map(|(shard, object)| RemoteShard::new(shard, object)).collect();
    Ok(Found { shards, labels })
}

/// The shards as the store lists them: sizes are compared, and tags see to it that one version is read. A web server has no
/// listing, and a user who may read need not be allowed to list; then only the checksums show a difference.
pub(in crate::remote) fn objects_of(
    dir: &Path,
    place: &Place,
    bucket: &Bucket,
    manifest: &Manifest,
) -> Result<Vec<Object>, CacheError> {
    let listed = match place.scheme() {
        Scheme::Http => vec![],
        _ => match bucket.list(place.key()) {
            Err(StoreError::Denied { .. }) => vec![],
            listed => listed?,
        },
    };
    let mut listed: HashMap<String, Object> = listed.into_iter().map(|object| (object.key.clone(), object)).collect();
    let has_listing = !listed.is_empty();
    let object = |entry: &ShardEntry| {
        let key = place.join(&entry.file).key().to_owned();
        let path = || dir.join(&entry.file);
        match listed.remove(&key) {
            Some(object) if object.bytes == entry.bytes => Ok(object),
            Some(object) => Err(CacheError::ShardSize { path: path(), expected: entry.bytes, actual: object.bytes }),
            None if has_listing => Err(CacheError::MissingShard { path: path() }),
            None => Ok(Object { key, bytes: entry.bytes, tag: None, modified_secs: 0 }),
        }
    };
    manifest.shards.iter().map(object).collect()
}

/// The labels of a shard's images, of which only the columns are here.
fn push_labels(shard: &Shard, columns: &[Bytes], labels: &mut Vec<i32>) -> Result<(), CacheError> {
    let parts = columns.iter().enumerate().map(|(group, column)| (shard.column_range(group, LABEL), column.clone()));
    let file = with_holes(shard, &parts.collect::<Vec<_>>())?;
    for group in 0..columns.len() {
        labels.extend(shard.image_labels(&file, group)?);
    }
    Ok(())
}

pub(in crate::remote) fn missing(dir: &Path, entry: &ShardEntry) -> impl FnOnce(StoreError) -> CacheError {
    let path = dir.join(&entry.file);
    move |error| match error {
        StoreError::NotFound { .. } => CacheError::MissingShard { path },
        error => error.into(),
    }
}
