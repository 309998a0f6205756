//! Images of one cache that have the keys of another's.

use crate::error::CacheError;
use crate::format::hash::short_hash;
use crate::read::cache::TokenCache;

/// Finds the image of the second cache with a given key. As a rule it has the same number as in the first; only where it
/// has not, a table of all keys is made. Memory: 8 bytes per image, with the table 12.
pub(super) struct Matches {
    /// 64 bits of the hash of each key, by image.
    keys: Vec<u64>,
    /// The images by the hashes of their keys.
    by_key: Option<Vec<u32>>,
    /// A bit for each image.
    taken: Vec<u64>,
}

/// Images that are sorted at a time.
const PART_IMAGES: usize = 1 << 20;

impl Matches {
    pub(super) fn new(cache: &TokenCache) -> Result<Matches, CacheError> {
        let mut keys = Vec::with_capacity(cache.num_images());
        cache.visit_keys(0..cache.num_images(), &mut |_, key| {
            keys.push(short_hash(key));
            Ok(())
        })?;
        let taken = vec![0; keys.len().div_ceil(64)];
        Ok(Matches { keys, by_key: None, taken })
    }

    /// The image with this key that was not taken yet: that of number `image` if it has the key, else the first.
    pub(super) fn take(&mut self, image: usize, key: &str) -> Option<usize> {
        let hash = short_hash(key);
        let found = if self.keys.get(image) == Some(&hash) && !self.is_taken(image) {
            Some(image)
        } else {
            let keys = &self.keys;
            let by_key: &[u32] = self.by_key.get_or_insert_with(|| sorted(keys));
            let first = by_key.partition_point(|image| keys[*image as usize] < hash);
            let mut same = by_key[first..].iter().map(|image| *image as usize).take_while(|image| keys[*image] == hash);
            let taken = &self.taken;
            same.find(|image| !has_bit(taken, *image))
        };
        if let Some(image) = found {
            self.taken[image / 64] |= 1 << (image % 64);
        }
        found
    }

    fn is_taken(&self, image: usize) -> bool {
        has_bit(&self.taken, image)
    }

    /// Calls `visit` with the keys of the images that were not taken.
    pub(super) fn visit_left(&self, cache: &TokenCache, visit: &mut dyn FnMut(&str)) -> Result<(), CacheError> {
        let num_taken: usize = self.taken.iter().map(|word| word.count_ones() as usize).sum();
        if num_taken == self.keys.len() {
            return Ok(());
        }
        cache.visit_keys(0..cache.num_images(), &mut |image, key| {
            if !self.is_taken(image) {
                visit(key);
            }
            Ok(())
        })
    }
}

fn has_bit(words: &[u64], bit: usize) -> bool {
    words[bit / 64] >> (bit % 64) & 1 == 1
}

/// The images by their hashes, in order where these are equal. Sorted in parts, whose entries are larger.
fn sorted(keys: &[u64]) -> Vec<u32> {
    let mut images = Vec::with_capacity(keys.len());
    let parts = keys.len().div_ceil(PART_IMAGES).max(1) as u128;
    for part in 0..parts {
        // Hashes are spread evenly over the parts.
        let is_of_part = |hash: u64| (u128::from(hash) * parts) >> 64 == part;
        let with_image = keys.iter().copied().zip(0u32..).filter(|(hash, _)| is_of_part(*hash));
        let mut of_part: Vec<(u64, u32)> = with_image.collect();
        of_part.sort_unstable();
        images.extend(of_part.into_iter().map(|(_, image)| image));
    }
    images
}
