//! Two caches, row by row: which rows only one of them has, and where labels, crops and tokens differ.

use crate::error::CacheError;
use crate::inspect::diff_rows::{Compare, Pair};
use crate::inspect::differences::CacheDiff;
use crate::inspect::matches::Matches;
use crate::read::cache::TokenCache;
use serde_json::Value;

/// Rows of the first cache that are compared at a time. Where the rows of the second one are in another order, all of its
/// columns are read once for each of these blocks, at about 24 bytes per row.
const BLOCK_ROWS: usize = 1 << 20;

/// Compares two caches; of rows that differ, lists the first `listed_max`. `progress` is called with the images of the
/// first cache that are done, and all of them.
///
/// Memory: 40 MiB, and a bit per image of the second cache; where the caches are in different orders, 12 bytes per image.
///
/// # Errors
/// As [`TokenCache::meta`], for a column of one of them; [`CacheError::Cancelled`]. Token bytes are compared as they are,
/// whatever their checksum.
///
/// # Panics
/// When one of them has more than 2^32 images.
pub fn diff(
    caches: [&TokenCache; 2],
    listed_max: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CacheDiff, CacheError> {
    let [a, b] = caches;
    let mut found =
        CacheDiff { manifests: manifests(caches), rows: caches.map(TokenCache::num_rows), ..Default::default() };
    let mut compare = Compare::new(caches, listed_max);
    let mut others = Matches::new(b);
    let block_images = (BLOCK_ROWS / a.num_views()).max(1);
    for start in (0..a.num_images()).step_by(block_images) {
        let images = start..(start + block_images).min(a.num_images());
        let mut pairs = Vec::with_capacity(images.len());
        others.read_block(images.clone())?;
        a.visit_keys(images.clone(), &mut |image, key| {
            match others.take(image, key)? {
                Some(other) => pairs.push(Pair::new(image, other)),
                None => {
                    found.only_in[0] += a.num_views();
                    push_key(&mut found.only_keys[0], key, listed_max);
                }
            }
            Ok(())
        })?;
        compare.images(&mut found, images.clone(), pairs)?;
        progress(images.end as u64, a.num_images() as u64);
    }
    found.only_in[1] = b.num_rows() - found.common_rows;
    others.visit_left(&mut |key| push_key(&mut found.only_keys[1], key, listed_max))?;
    found.unequal_by_bit = compare.into_unequal_by_bit();
    let differing =
        found.only_in.iter().sum::<usize>() + found.labels_differ + found.crops_differ + found.tokens_differ;
    found.same = differing == 0 && a.grid() == b.grid();
    Ok(found)
}

fn push_key(keys: &mut Vec<String>, key: &str, max: usize) {
    if keys.len() < max {
        keys.push(key.to_owned());
    }
}

fn manifests([a, b]: [&TokenCache; 2]) -> Vec<(&'static str, Value, Value)> {
    let (a, b) = (a.manifest(), b.manifest());
    let text = |value: &str| Value::from(value);
    let value = |value: serde_json::Result<Value>| value.unwrap_or_default();
    let fields = [
        ("content_hash", text(&a.content_hash), text(&b.content_hash)),
        ("grid", text(&a.grid), text(&b.grid)),
        ("bits", a.bits.into(), b.bits.into()),
        ("views", a.views.into(), b.views.into()),
        ("first_view", a.first_view.into(), b.first_view.into()),
        ("recipe", a.recipe.clone(), b.recipe.clone()),
        ("tokenizer", value(serde_json::to_value(&a.tokenizer)), value(serde_json::to_value(&b.tokenizer))),
        ("classes", value(serde_json::to_value(&a.classes)), value(serde_json::to_value(&b.classes))),
        ("quarantined", a.quarantine.images.into(), b.quarantine.images.into()),
    ];
    fields.into_iter().filter(|(_, a, b)| a != b).collect()
}
