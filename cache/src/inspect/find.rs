//! Rows by class, view, shard and a part of their key.

use crate::error::CacheError;
use crate::format::manifest::Manifest;
use crate::inspect::classes::ClassIndex;
use crate::lookup::key_index::KeyIndex;
use crate::parallel;
use crate::parallel::num_threads;
use crate::read::cache::TokenCache;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Images that a thread takes at a time.
const BLOCK_IMAGES: usize = 65_536;

/// What rows must have; `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowFilter {
    /// Class index, -1 for rows without a class.
    pub label: Option<i32>,
    /// View, as rows number it.
    pub view: Option<u32>,
    /// Shard, by its position in the manifest, from 0.
    pub shard: Option<usize>,
    /// Text that is part of the key.
    pub key: Option<String>,
}

/// Rows that a filter found, in row order. Only a filter by key takes memory for each image; the rows of any other are
/// computed.
#[derive(Clone, Debug)]
pub struct FoundRows {
    images: Images,
    /// Of each image, by their places among its views.
    views: Range<usize>,
    views_of_image: usize,
}

#[derive(Clone, Debug)]
enum Images {
    Range(Range<usize>),
    List(Vec<u32>),
}

impl FoundRows {
    /// How many.
    pub fn len(&self) -> usize {
        let images = match &self.images {
            Images::Range(range) => range.len(),
            Images::List(list) => list.len(),
        };
        images * self.views.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at a place in the list, in constant time; `None` after the last one.
    pub fn get(&self, place: usize) -> Option<usize> {
        if place >= self.len() {
            return None;
        }
        let (nth, view) = (place / self.views.len(), self.views.start + place % self.views.len());
        let image = match &self.images {
            Images::Range(range) => range.start + nth,
            Images::List(list) => list[nth] as usize,
        };
        Some(image * self.views_of_image + view)
    }
}

/// Finds the rows that `filter` lets through. Labels are in memory. A filter by key looks them up in the index beside a
/// large cache, and makes it where there is none; where that cannot be, it reads every key, on all cores.
///
/// # Errors
/// [`CacheError::Cancelled`]; as [`TokenCache::meta`] where keys are damaged. A view, shard or class that the cache does not
/// have finds nothing.
pub fn find_rows(
    cache: &TokenCache,
    index: &ClassIndex,
    filter: &RowFilter,
    cancel: &AtomicBool,
) -> Result<FoundRows, CacheError> {
    find_rows_with_progress(cache, index, filter, cancel, &mut |_, _| {})
}

/// As [`find_rows`]; `progress` is called with the images whose keys were read, and all of them, where that must be done.
///
/// # Errors
/// As [`find_rows`].
pub fn find_rows_with_progress(
    cache: &TokenCache,
    index: &ClassIndex,
    filter: &RowFilter,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FoundRows, CacheError> {
    let (views, range) = filter.places(cache.manifest());
    let images = match (filter.label, &filter.key) {
        (label, Some(key)) => Images::List(by_key(cache, range, label, key, cancel, progress)?),
        (None, None) => Images::Range(range),
        (Some(label), None) => {
            let is_inside = |image: &&u32| range.contains(&(**image as usize));
            Images::List(index.images(label).iter().filter(is_inside).copied().collect())
        }
    };
    Ok(FoundRows { images, views, views_of_image: cache.num_views() })
}

/// As [`find_rows`], where `find` finds the images of the filter's class and key among a range of them.
pub(crate) fn find_by(
    manifest: &Manifest,
    filter: &RowFilter,
    find: impl FnOnce(&Range<usize>) -> Result<Vec<u32>, CacheError>,
) -> Result<FoundRows, CacheError> {
    let (views, range) = filter.places(manifest);
    let images = match (filter.label, &filter.key) {
        (None, None) => Images::Range(range),
        _ => Images::List(find(&range)?),
    };
    Ok(FoundRows { images, views, views_of_image: manifest.views as usize })
}

/// As [`find_rows`], from the manifest and the index of keys alone. `None` where there is no index, and one is needed.
pub(crate) fn find_in_index(
    manifest: &Manifest,
    index: Option<&KeyIndex>,
    filter: &RowFilter,
    cancel: &AtomicBool,
) -> Result<Option<FoundRows>, CacheError> {
    let (views, range) = filter.places(manifest);
    let images = if filter.label.is_none() && filter.key.is_none() {
        Some(Images::Range(range))
    } else if let Some(index) = index {
        index.find(range, filter.label, filter.key.as_deref(), cancel)?.map(Images::List)
    } else {
        None
    };
    Ok(images.map(|images| FoundRows { images, views, views_of_image: manifest.views as usize }))
}

impl RowFilter {
    /// The views by their places among those of an image, and the images of the shard.
    fn places(&self, manifest: &Manifest) -> (Range<usize>, Range<usize>) {
        let (num_views, first_view) = (manifest.views as usize, manifest.first_view as usize);
        let views = match self.view.map(|view| (view as usize).checked_sub(first_view)) {
            None => 0..num_views,
            Some(Some(view)) if view < num_views => view..view + 1,
            Some(_) => 0..0,
        };
        let images = match self.shard {
            None => 0..manifest.images,
            Some(shard) => manifest.shard_images(shard),
        };
        (views, images)
    }
}

fn by_key(
    cache: &TokenCache,
    images: Range<usize>,
    label: Option<i32>,
    text: &str,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<u32>, CacheError> {
    if let Some(index) = cache.key_index_or_new(cancel, progress) {
        if let Some(found) = index.find(images.clone(), label, Some(text), cancel)? {
            return Ok(found);
        }
        // Damaged. The next time it is made again.
        index.remove();
    }
    let blocks = images.len().div_ceil(BLOCK_IMAGES);
    let (mut done, all) = (0, images.len() as u64);
    let mut count = |images| {
        done += images;
        progress(done, all);
    };
    let found = parallel::map(num_threads(), blocks, &mut count, |block, report| {
        let start = images.start + block * BLOCK_IMAGES;
        let of_block = start..(start + BLOCK_IMAGES).min(images.end);
        let mut found = Vec::new();
        cache.visit_keys(of_block.clone(), &mut |image, key| {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            let is_of_class = label.is_none_or(|label| cache.image_label(image) == label);
            if is_of_class && key.contains(text) {
                found.push(u32::try_from(image).expect("fewer than 2^32 images"));
            }
            Ok(())
        })?;
        report(of_block.len() as u64);
        Ok(found)
    })?;
    Ok(found.concat())
}
