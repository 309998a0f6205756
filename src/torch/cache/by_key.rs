//! Finds the images of a damaged cache in the sources by their keys, where the cache is of a part of the sources.

use super::origin::{Located, Origin};
use crate::exit::Usage;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use tokengrid_cache::{Manifest, QuarantineReader, Split, surviving_keys};

/// The number of an image that is not known.
const UNKNOWN: u32 = u32::MAX;

/// A cache whose sources have other images, too.
pub(super) struct ImagesByKey<'a> {
    origin: &'a Origin<'a>,
    /// Of each image of the cache's job, its number among the images of all sources; [`UNKNOWN`] where nothing says which one
    /// it is.
    numbers: Vec<u32>,
}

impl<'a> ImagesByKey<'a> {
    /// Finds every image whose key can still be read, and those between them where the sources leave no choice.
    ///
    /// # Errors
    /// The sources do not have an image that the cache has rows of.
    pub(super) fn find(dir: &Path, manifest: &Manifest, origin: &'a Origin<'a>) -> anyhow::Result<ImagesByKey<'a>> {
        let keys = KeyTable::of(origin);
        let quarantined = quarantined(dir, manifest);
        let mut numbers = vec![UNKNOWN; manifest.source.images];
        let mut missing: Option<(usize, String)> = None;
        surviving_keys(dir, manifest, &mut |image, key| {
            let Some(place) = numbers.get_mut(image) else { return };
            let number = keys.number(Split::name_of(&manifest.splits, image), key);
            *place = number.unwrap_or(UNKNOWN);
            // An image that could not be decoded may have been taken away; its record is known without it.
            let is_missing = number.is_none() && quarantined.binary_search(&image).is_err();
            if is_missing && missing.as_ref().is_none_or(|(first, _)| image < *first) {
                missing = Some((image, key.to_owned()));
            }
        });
        if let Some((image, key)) = missing {
            return Err(no_image(Split::name_of(&manifest.splits, image), &key).into());
        }
        let source_split = |number: usize| origin.image(number).map_or("", |(split, _)| split);
        fill_gaps(&mut numbers, &|image| Split::name_of(&manifest.splits, image), origin.num_images(), &source_split);
        Ok(ImagesByKey { origin, numbers })
    }

    /// Location of an image.
    ///
    /// # Errors
    /// Its key is lost.
    pub(super) fn locate(&self, image: usize) -> Result<Located, String> {
        let number = self.numbers.get(image).filter(|number| **number != UNKNOWN);
        number.and_then(|number| self.origin.locate(*number as usize)).ok_or_else(|| {
            format!(
                "the key of image {image} is lost with its shard, and the sources have more images than the cache: give \
                 sources of the cache's images alone"
            )
        })
    }
}

/// The images of the sources by split and key. Memory: 16 bytes for each.
struct KeyTable<'a> {
    origin: &'a Origin<'a>,
    /// Hashes with the images' numbers, sorted.
    hashes: Vec<(u64, u32)>,
}

impl KeyTable<'_> {
    fn of<'a>(origin: &'a Origin<'a>) -> KeyTable<'a> {
        let mut hashes: Vec<_> = origin.images().zip(0..UNKNOWN).map(|((s, key, _), n)| (hash(s, key), n)).collect();
        hashes.sort_unstable();
        KeyTable { origin, hashes }
    }

    fn number(&self, split: &str, key: &str) -> Option<u32> {
        let hash = hash(split, key);
        let first = self.hashes.partition_point(|(other, _)| *other < hash);
        let same = self.hashes[first..].iter().take_while(|(other, _)| *other == hash).map(|(_, number)| *number);
        same.filter(|number| self.origin.image(*number as usize) == Some((split, key))).last()
    }
}

fn hash(split: &str, key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (split, key).hash(&mut hasher);
    hasher.finish()
}

/// The numbers of the images without rows, where the list of them is intact.
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

/// Images without a number, between two that have one: those of the source that lie between these, if they are as many.
/// `split` tells that of each of the cache's images, `source_split` that of each of `num_source` images of the source.
fn fill_gaps<'a>(
    found: &mut [u32],
    split: &dyn Fn(usize) -> &'a str,
    num_source: usize,
    source_split: &dyn Fn(usize) -> &'a str,
) {
    let mut start = 0;
    while start < found.len() {
        let of_gap = split(start);
        let is_gap = |image: &usize| found[*image] == UNKNOWN && split(*image) == of_gap;
        let end = start + (start..found.len()).take_while(is_gap).count();
        if end == start {
            start += 1;
            continue;
        }
        let neighbour = |image: Option<usize>| {
            let number = found[image.filter(|image| *image < found.len() && split(*image) == of_gap)?];
            (number != UNKNOWN).then_some(number as usize)
        };
        let of_split = || (0..num_source).filter(|number| source_split(*number) == of_gap);
        let first = neighbour(start.checked_sub(1)).map(|number| number + 1).or_else(|| of_split().next());
        let last = neighbour(Some(end)).or_else(|| of_split().next_back().map(|number| number + 1));
        if let (Some(first), Some(last)) = (first, last)
            && last.checked_sub(first) == Some(end - start)
        {
            (start..end).zip(first..last).for_each(|(image, number)| found[image] = number as u32);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_where_there_is_no_choice() {
        let filled = |found: &[Option<u32>], splits: &[&'static str], source: &[&'static str]| {
            let mut found: Vec<u32> = found.iter().map(|number| number.unwrap_or(UNKNOWN)).collect();
            fill_gaps(&mut found, &|image| splits[image], source.len(), &|number| source[number]);
            found.into_iter().map(|number| (number != UNKNOWN).then_some(number)).collect::<Vec<_>>()
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
