//! Labels that contradict the images' own names.
//!
//! Images of a class usually lie in a folder of its name, and the folder is part of the key. Where a key has a folder that
//! is called like a class of the cache, and the label is another class, one of the two is wrong.

use crate::error::CacheError;
use crate::parallel;
use crate::read::cache::TokenCache;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Conflicts that are listed; all are counted.
const LISTED: usize = 10_000;

/// Images that a thread takes at a time.
const BLOCK_IMAGES: usize = 65_536;

/// An image whose folder is called like another class than its label's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelConflict {
    /// The image's first row.
    pub row: usize,
    /// Its label; -1 for none.
    pub label: i32,
    /// The class that its folder is called like.
    pub folder: i32,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelConflicts {
    /// Images with a folder that is called like a class: those that could be compared.
    pub compared: usize,
    /// Images whose label is another one.
    pub images: usize,
    /// The first of them.
    pub listed: Vec<LabelConflict>,
}

/// Whether the cache's classes have names, so that keys are read.
pub(super) fn are_looked_for(cache: &TokenCache) -> bool {
    !cache.manifest().classes.is_empty()
}

/// Reads every key. `progress` is called with numbers of rows.
pub(super) fn find(
    cache: &TokenCache,
    threads: usize,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<LabelConflicts, CacheError> {
    if !are_looked_for(cache) {
        return Ok(LabelConflicts::default());
    }
    let names = &cache.manifest().classes;
    let classes: HashMap<&str, i32> = names.iter().map(String::as_str).zip(0..).collect();
    let blocks = cache.num_images().div_ceil(BLOCK_IMAGES);
    let found = parallel::map(threads, blocks, progress, |block, report| {
        let mut found = LabelConflicts::default();
        let images = block * BLOCK_IMAGES..((block + 1) * BLOCK_IMAGES).min(cache.num_images());
        cache.visit_keys(images.clone(), &mut |image, key| {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            found.compare(cache, &classes, image, key);
            Ok(())
        })?;
        report((images.len() * cache.num_views()) as u64);
        Ok(found)
    })?;
    let mut all = LabelConflicts::default();
    for found in found {
        all.compared += found.compared;
        all.images += found.images;
        all.listed.extend(found.listed);
    }
    all.listed.truncate(LISTED);
    Ok(all)
}

impl LabelConflicts {
    fn compare(&mut self, cache: &TokenCache, classes: &HashMap<&str, i32>, image: usize, key: &str) {
        // The last part is the file's own name. Of several folders, the one nearest to the file counts.
        let Some(folder) = key.split('/').rev().skip(1).find_map(|part| classes.get(part)).copied() else { return };
        let label = cache.image_label(image);
        self.compared += 1;
        if label != folder {
            self.images += 1;
            if self.listed.len() < LISTED {
                self.listed.push(LabelConflict { row: cache.image_rows(image).start, label, folder });
            }
        }
    }
}
