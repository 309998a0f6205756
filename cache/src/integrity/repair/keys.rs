//! Which images a damaged cache is of, as far as it still says so.

use crate::error::CacheError;
use crate::format::manifest::{Manifest, ShardEntry};
use crate::shard::access::Access;
use crate::shard::open::Shard;
use std::path::Path;

/// Calls `visit` with the number and the key of each image of the cache's source, `0..source.images`, but those of which the
/// key column or the shard's footer is damaged. Every key is one that was written: its checksum holds. One shard is in memory
/// at a time.
pub fn surviving_keys(dir: &Path, manifest: &Manifest, visit: &mut dyn FnMut(usize, &str)) {
    for entry in &manifest.shards {
        // A shard that cannot be read has no keys to give.
        let _ = read_keys(&dir.join(&entry.file), entry, manifest.views.max(1) as usize, visit);
    }
}

fn read_keys(
    path: &Path,
    entry: &ShardEntry,
    views: usize,
    visit: &mut dyn FnMut(usize, &str),
) -> Result<(), CacheError> {
    let shard = Shard::open_damaged(path, entry)?;
    let bytes = shard.load(Access::Copy)?;
    let quarantined = &shard.footer.quarantined;
    quarantined.iter().for_each(|record| visit(record.index, &record.key));
    for (group, range) in entry.row_groups.iter().map(|group| group.images).enumerate() {
        let Ok(found) = shard.keys(&bytes, group, 0..shard.group_rows(group)) else { continue };
        // The records are in order.
        let has_rows = |image: &usize| quarantined.binary_search_by_key(image, |record| record.index).is_err();
        let images = (range[0]..range[1]).filter(has_rows);
        for (image, key) in images.zip(found.iter().step_by(views)) {
            if let Ok(key) = shard.key_text(group, key) {
                visit(image, key);
            }
        }
    }
    Ok(())
}
