//! Finds the images of a damaged cache in the sources by their keys, where the cache is of a part of the sources.

use super::origin::{Located, Origin};
use crate::exit::Usage;
use std::collections::HashMap;
use std::path::Path;
use tokengrid_cache::{Manifest, QuarantineReader, surviving_keys};

/// A cache that is of a part of its sources.
pub(super) struct ImagesByKey {
    /// Location of each image of the cache's job; `None` where it cannot be determined.
    places: Vec<Option<Located>>,
}

impl ImagesByKey {
    /// Finds every image whose key can still be read, and those between them where the sources have only one possibility.
    ///
    /// # Errors
    /// An image with rows in the cache is not in the sources.
    pub(super) fn find(dir: &Path, manifest: &Manifest, origin: &Origin) -> anyhow::Result<ImagesByKey> {
        let images: Vec<_> = origin.images().collect();
        let numbers: HashMap<_, _> =
            images.iter().enumerate().map(|(number, (split, key, _))| ((*split, *key), number)).collect();
        let keys = surviving_keys(dir, manifest);
        let quarantined = quarantined(dir, manifest);
        let mut found = vec![None; keys.len()];
        for (image, key) in keys.iter().enumerate() {
            if let Some(key) = key {
                let split = split_of(manifest, image);
                let number = numbers.get(&(split, key.as_str())).copied();
                // An image that could not be decoded may have been removed; its record is known without it.
                if number.is_none() && quarantined.binary_search(&image).is_err() {
                    return Err(no_image(split, key).into());
                }
                found[image] = number;
            }
        }
        let splits: Vec<&str> = (0..keys.len()).map(|image| split_of(manifest, image)).collect();
        fill_gaps(&mut found, &splits, &images.iter().map(|(split, ..)| *split).collect::<Vec<_>>());
        Ok(ImagesByKey { places: found.into_iter().map(|number| Some(images[number?].2)).collect() })
    }

    /// Location of an image.
    ///
    /// # Errors
    /// Its key is lost.
    pub(super) fn locate(&self, image: usize) -> Result<Located, String> {
        self.places.get(image).copied().flatten().ok_or_else(|| {
            format!(
                "the key of image {image} is lost with its shard, and the sources have more images than the cache: give \
                 sources of the cache's images alone"
            )
        })
    }
}

/// The numbers of the images without rows, if the list of them is intact.
fn quarantined(dir: &Path, manifest: &Manifest) -> Vec<usize> {
    let records = QuarantineReader::open(dir, manifest).into_iter().flatten();
    records.map(|record| record.map(|record| record.index)).collect::<Result<_, _>>().unwrap_or_default()
}

/// The error that an image of the cache is not in the sources.
pub(super) fn no_image(split: &str, key: &str) -> Usage {
    let within = if split.is_empty() { String::new() } else { format!(" for the split {split}") };
    Usage(format!(
        "the source{within} has no image `{key}`, which the cache has; give the source that it was made of, and the \
         --exclude, --preset and --labels that were used"
    ))
}

/// The split of an image of the cache's job; empty in a cache without splits.
pub(super) fn split_of(manifest: &Manifest, image: usize) -> &str {
    let split = manifest.splits.iter().find(|split| (split.images[0]..split.images[1]).contains(&image));
    split.map_or("", |split| split.name.as_str())
}

/// Images without a key, between two that are known: those of the source that lie between these, if they are as many.
/// `splits` are those of the cache's images, `source_splits` those of the source's.
fn fill_gaps(found: &mut [Option<usize>], splits: &[&str], source_splits: &[&str]) {
    let mut start = 0;
    while start < found.len() {
        let is_gap = |image: &usize| found[*image].is_none() && splits[*image] == splits[start];
        let end = start + (start..found.len()).take_while(is_gap).count();
        if end == start {
            start += 1;
            continue;
        }
        let neighbour = |image: Option<usize>| {
            image.filter(|image| splits.get(*image) == Some(&splits[start])).and_then(|image| found[image])
        };
        let of_split = || source_splits.iter().enumerate().filter(|(_, split)| **split == splits[start]);
        let first = neighbour(start.checked_sub(1)).map(|number| number + 1).or_else(|| Some(of_split().next()?.0));
        let last = neighbour(Some(end)).or_else(|| Some(of_split().next_back()?.0 + 1));
        if let (Some(first), Some(last)) = (first, last)
            && last.checked_sub(first) == Some(end - start)
        {
            (start..end).zip(first..last).for_each(|(image, number)| found[image] = Some(number));
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_where_there_is_no_choice() {
        let filled = |found: &[Option<usize>], splits: &[&str], source: &[&str]| {
            let mut found = found.to_vec();
            fill_gaps(&mut found, splits, source);
            found
        };
        assert_eq!(filled(&[Some(3), None, None, Some(6)], &[""; 4], &[""; 9]), [3, 4, 5, 6].map(Some));
        assert_eq!(filled(&[Some(3), None, Some(6)], &[""; 3], &[""; 9]), [Some(3), None, Some(6)]);
        assert_eq!(filled(&[None, Some(1), None], &[""; 3], &[""; 3]), [0, 1, 2].map(Some));
        assert_eq!(filled(&[Some(6), None, Some(3)], &[""; 3], &[""; 9]), [Some(6), None, Some(3)]);
        let splits = ["a", "a", "b", "b"];
        assert_eq!(filled(&[Some(0), None, None, Some(3)], &splits, &splits), [0, 1, 2, 3].map(Some));
        assert_eq!(filled(&[None; 4], &splits, &["a", "b", "b"]), [None, None, Some(1), Some(2)]);
    }
}
