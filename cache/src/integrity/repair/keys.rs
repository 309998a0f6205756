//! Which images a damaged cache is of, as far as it still says so.

use crate::error::CacheError;
use crate::format::manifest::{Manifest, ShardEntry};
use crate::shard::access::Access;
use crate::shard::open::Shard;
use std::path::Path;

/// The key of each image of the cache's source, `0..source.images`; `None` where its column or the shard's footer is
/// damaged. Every key is one that was written: its checksum holds.
pub fn surviving_keys(dir: &Path, manifest: &Manifest) -> Vec<Option<String>> {
    let mut keys = vec![None; manifest.source.images];
    for entry in &manifest.shards {
        // A shard that cannot be read has no keys to give.
        let _ = read_keys(&dir.join(&entry.file), entry, manifest.views.max(1) as usize, &mut keys);
    }
    keys
}

fn read_keys(path: &Path, entry: &ShardEntry, views: usize, keys: &mut [Option<String>]) -> Result<(), CacheError> {
    let shard = Shard::open_damaged(path, entry)?;
    let bytes = shard.load(Access::Copy)?;
    let quarantined = &shard.footer.quarantined;
    for record in quarantined {
        if let Some(key) = keys.get_mut(record.index) {
            *key = Some(record.key.clone());
        }
    }
    for (group, range) in entry.row_groups.iter().map(|group| group.images).enumerate() {
        let Ok(found) = shard.keys(&bytes, group, 0..shard.group_rows(group)) else { continue };
        // The records are in order.
        let has_rows = |image: &usize| quarantined.binary_search_by_key(image, |record| record.index).is_err();
        let images = (range[0]..range[1]).filter(has_rows);
        for (image, key) in images.zip(found.iter().step_by(views)) {
            if let Some(place) = keys.get_mut(image) {
                *place = shard.key_text(group, key).ok().map(str::to_owned);
            }
        }
    }
    Ok(())
}
