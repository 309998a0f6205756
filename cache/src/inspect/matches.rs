//! Images of one cache that have the keys of another's.

use crate::error::CacheError;
use crate::format::hash::short_hash;
use crate::read::cache::TokenCache;

/// Finds the image of the second cache with a given key. As a rule it has the same number as in the first; only where it
/// has not, a table of all keys is made.
pub(super) struct Matches {
    /// 64 bits of the hash of each key, by image.
    keys: Vec<u64>,
    /// The same, sorted, with the images.
    by_key: Option<Vec<(u64, u32)>>,
    taken: Vec<bool>,
}

impl Matches {
    pub(super) fn new(cache: &TokenCache) -> Result<Matches, CacheError> {
        let mut keys = Vec::with_capacity(cache.num_images());
        cache.visit_keys(0..cache.num_images(), &mut |_, key| {
            keys.push(short_hash(key));
            Ok(())
        })?;
        let taken = vec![false; keys.len()];
        Ok(Matches { keys, by_key: None, taken })
    }

    /// The image with this key that was not taken yet: that of number `image` if it has the key, else the first.
    pub(super) fn take(&mut self, image: usize, key: &str) -> Option<usize> {
        let hash = short_hash(key);
        let found = if self.keys.get(image) == Some(&hash) && !self.taken[image] {
            Some(image)
        } else {
            let (keys, taken) = (&self.keys, &self.taken);
            let by_key = self.by_key.get_or_insert_with(|| {
                let mut by_key: Vec<_> = keys.iter().copied().zip(0..).collect();
                by_key.sort_unstable();
                by_key
            });
            let first = by_key.partition_point(|(other, _)| *other < hash);
            let same = by_key[first..].iter().take_while(|(other, _)| *other == hash);
            same.map(|(_, image)| *image as usize).find(|image| !taken[*image])
        };
        found.inspect(|image| self.taken[*image] = true)
    }

    /// Calls `visit` with the keys of the images that were not taken.
    pub(super) fn visit_left(&self, cache: &TokenCache, visit: &mut dyn FnMut(&str)) -> Result<(), CacheError> {
        if self.taken.iter().all(|taken| *taken) {
            return Ok(());
        }
        cache.visit_keys(0..cache.num_images(), &mut |image, key| {
            if !self.taken[image] {
                visit(key);
            }
            Ok(())
        })
    }
}
