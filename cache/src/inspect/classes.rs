//! Which images each class has.

use crate::read::cache::TokenCache;
use std::ops::RangeInclusive;

/// The images of a cache by class: built in one pass over the labels, which are in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassIndex {
    /// Class c has `images[starts[c + 1] .. starts[c + 2]]`; -1, no class, comes first.
    starts: Vec<usize>,
    images: Vec<u32>,
}

impl ClassIndex {
    /// Sorts the images of `cache` by class, in order within each. Memory: 4 bytes per image.
    ///
    /// # Panics
    /// When the cache has more than 2^32 images.
    pub fn of(cache: &TokenCache) -> ClassIndex {
        let slot = |image: usize| (cache.image_label(image) + 1) as usize;
        let mut starts = vec![0usize; cache.manifest().classes.len() + 2];
        for image in 0..cache.num_images() {
            let end = slot(image) + 1;
            if starts.len() <= end {
                starts.resize(end + 1, 0);
            }
            starts[end] += 1;
        }
        (1..starts.len()).for_each(|slot| starts[slot] += starts[slot - 1]);
        let mut next = starts.clone();
        let mut images = vec![0; cache.num_images()];
        for image in 0..cache.num_images() {
            let place = &mut next[slot(image)];
            images[*place] = u32::try_from(image).expect("fewer than 2^32 images");
            *place += 1;
        }
        ClassIndex { starts, images }
    }

    /// The labels that there may be: -1 (unknown), then every class of the list and every label that occurs.
    pub fn labels(&self) -> RangeInclusive<i32> {
        -1..=self.starts.len() as i32 - 3
    }

    /// The numbers of a class's images, in order; none where there is no such class.
    pub fn images(&self, label: i32) -> &[u32] {
        let slot = usize::try_from(i64::from(label) + 1).unwrap_or(usize::MAX - 1);
        match (self.starts.get(slot), self.starts.get(slot + 1)) {
            (Some(start), Some(end)) => &self.images[*start..*end],
            _ => &[],
        }
    }
}
