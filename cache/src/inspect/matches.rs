//! Images of one cache that have the keys of another's.

use crate::error::CacheError;
use crate::format::hash::short_hash;
use crate::read::cache::TokenCache;
use std::ops::Range;

/// Finds the image of the second cache with a given key. As a rule it has the same number as in the first, so that the keys of
/// a block of images are enough; only where it has not, a table of all keys is made. Memory: 8 bytes per image of a block,
/// and a bit per image; with the table 12 bytes per image.
pub(super) struct Matches<'a> {
    cache: &'a TokenCache,
    /// The images whose keys were read last.
    block: Range<usize>,
    /// 64 bits of the hash of each of their keys.
    of_block: Vec<u64>,
    table: Option<KeyTable>,
    /// A bit for each image.
    taken: Vec<u64>,
}

/// The keys of all images.
struct KeyTable {
    /// 64 bits of the hash of each key, by image.
    keys: Vec<u64>,
    /// The images by the hashes of their keys.
    by_key: Vec<u32>,
}

/// Images that are sorted at a time.
const PART_IMAGES: usize = 1 << 18;

impl<'a> Matches<'a> {
    pub(super) fn new(cache: &'a TokenCache) -> Matches<'a> {
        let taken = vec![0; cache.num_images().div_ceil(64)];
        Matches { cache, block: 0..0, of_block: Vec::new(), table: None, taken }
    }

    /// Reads the keys of the images of these numbers, as far as there are so many: they are asked for next.
    pub(super) fn read_block(&mut self, images: Range<usize>) -> Result<(), CacheError> {
        let end = images.end.min(self.cache.num_images());
        self.block = images.start.min(end)..end;
        if self.table.is_none() {
            read_hashes(self.cache, self.block.clone(), &mut self.of_block)?;
        }
        Ok(())
    }

    /// The image with this key that was not taken yet: that of number `image`, which is one of the block's, if it has the
    /// key, else the first.
    pub(super) fn take(&mut self, image: usize, key: &str) -> Result<Option<usize>, CacheError> {
        let hash = short_hash(key);
        let same_place = match &self.table {
            Some(table) => table.keys.get(image),
            None => image.checked_sub(self.block.start).and_then(|place| self.of_block.get(place)),
        };
        let found = if same_place == Some(&hash) && !has_bit(&self.taken, image) {
            Some(image)
        } else {
            let taken = &self.taken;
            let table = match &mut self.table {
                Some(table) => table,
                none => {
                    // The table has what the block has.
                    self.of_block = Vec::new();
                    none.insert(KeyTable::of(self.cache)?)
                }
            };
            table.images(hash).find(|image| !has_bit(taken, *image))
        };
        if let Some(image) = found {
            self.taken[image / 64] |= 1 << (image % 64);
        }
        Ok(found)
    }

    /// Calls `visit` with the keys of the images that were not taken.
    pub(super) fn visit_left(&self, visit: &mut dyn FnMut(&str)) -> Result<(), CacheError> {
        let num_taken: usize = self.taken.iter().map(|word| word.count_ones() as usize).sum();
        let num_images = self.cache.num_images();
        if num_taken == num_images {
            return Ok(());
        }
        self.cache.visit_keys(0..num_images, &mut |image, key| {
            if !has_bit(&self.taken, image) {
                visit(key);
            }
            Ok(())
        })
    }
}

impl KeyTable {
    fn of(cache: &TokenCache) -> Result<KeyTable, CacheError> {
        let mut keys = Vec::new();
        read_hashes(cache, 0..cache.num_images(), &mut keys)?;
        let by_key = sorted(&keys);
        Ok(KeyTable { keys, by_key })
    }

    /// The images whose keys have this hash, in order.
    fn images(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.by_key.partition_point(|image| self.keys[*image as usize] < hash);
        let images = self.by_key[first..].iter().map(|image| *image as usize);
        images.take_while(move |image| self.keys[*image] == hash)
    }
}

/// Puts the hashes of these images' keys into `out`, which they replace.
fn read_hashes(cache: &TokenCache, images: Range<usize>, out: &mut Vec<u64>) -> Result<(), CacheError> {
    out.clear();
    out.reserve_exact(images.len());
    cache.visit_keys(images, &mut |_, key| {
        out.push(short_hash(key));
        Ok(())
    })
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
