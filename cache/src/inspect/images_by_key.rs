//! Images by their keys, for many questions in any order.

use crate::error::CacheError;
use crate::parallel::{self, num_threads};
use crate::read::cache::TokenCache;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Images that a thread takes at a time.
const BLOCK_IMAGES: usize = 65_536;

/// Finds images by their keys. Memory: 8 bytes per image.
#[derive(Clone, Debug)]
pub struct ImagesByKey {
    /// In ascending order: 32 bits of the key's hash, then the image.
    entries: Vec<u64>,
}

impl ImagesByKey {
    /// Reads every key of `cache`, on all cores. `cancel` ends that.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`]; the keys are damaged.
    ///
    /// # Panics
    /// When the cache has more than 2^32 images.
    pub fn of(cache: &TokenCache, cancel: &AtomicBool) -> Result<ImagesByKey, CacheError> {
        // Filled in place: parts that are joined would be there twice.
        let mut entries = vec![0; cache.num_images()];
        let parts: Vec<Mutex<&mut [u64]>> = entries.chunks_mut(BLOCK_IMAGES).map(Mutex::new).collect();
        parallel::map(num_threads(), parts.len(), &mut |_| {}, |block, _| {
            let mut part = parts[block].lock().unwrap_or_else(PoisonError::into_inner);
            let first = block * BLOCK_IMAGES;
            cache.visit_keys(first..first + part.len(), &mut |image, key| {
                if cancel.load(Ordering::Relaxed) {
                    return Err(CacheError::Cancelled);
                }
                let number = u32::try_from(image).expect("fewer than 2^32 images");
                part[image - first] = hash(key) << 32 | u64::from(number);
                Ok(())
            })
        })?;
        drop(parts);
        entries.sort_unstable();
        Ok(ImagesByKey { entries })
    }

    /// The images of exactly this key, in order: several where splits have the same one. `cache` is the one that was indexed;
    /// the keys of candidates are read again.
    ///
    /// # Errors
    /// As [`TokenCache::meta`].
    pub fn images(&self, cache: &TokenCache, key: &str) -> Result<Vec<usize>, CacheError> {
        let wanted = hash(key);
        let start = self.entries.partition_point(|entry| entry >> 32 < wanted);
        let mut images = Vec::new();
        for entry in self.entries[start..].iter().take_while(|entry| *entry >> 32 == wanted) {
            let image = *entry as u32 as usize;
            if cache.meta(cache.image_rows(image).start)?.key == key {
                images.push(image);
            }
        }
        Ok(images)
    }
}

/// 32 bits that nobody can make many keys agree in.
fn hash(key: &str) -> u64 {
    let hash = blake3::hash(key.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::synthetic::write_synthetic_cache;

    #[test]
    fn every_key_leads_to_its_image() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("cache");
        write_synthetic_cache(&dir, 700, 2).unwrap();
        let cache = TokenCache::open(&dir).unwrap();
        let index = ImagesByKey::of(&cache, &AtomicBool::new(false)).unwrap();
        for image in 0..700 {
            let key = cache.meta(image * 2).unwrap().key;
            assert_eq!(index.images(&cache, &key).unwrap(), [image]);
        }
        assert!(index.images(&cache, "none").unwrap().is_empty());
        assert!(matches!(ImagesByKey::of(&cache, &AtomicBool::new(true)), Err(CacheError::Cancelled)));
    }
}
