//! Where a cache's images lie in its sources: one, one for each split, or those of the parts that were merged.

use crate::config::NamedSource;
use crate::reply::Refusal;
use crate::text::printable;
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;
use tokengrid_cache::{Manifest, QuarantineReader, Split};
use tokengrid_ingest::Source;

/// The sources of a cache, in the order of its images.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<Part>,
    splits: Vec<Split>,
    /// Numbers of the sources' images that have no rows, ascending.
    skipped: Vec<usize>,
}

#[derive(Debug)]
struct Part {
    split: String,
    source: Source,
    /// For each of the source's labels, the cache's, where the cache has all of the source's classes: merged caches have united
    /// class lists.
    labels: Option<Vec<i32>>,
    /// Index of each key; made when a row is not where it was when the cache was made.
    by_key: OnceLock<HashMap<String, usize>>,
}

/// An image of one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImagePosition {
    part: usize,
    index: usize,
}

impl Parts {
    /// The sources of the cache in `dir`.
    pub(super) fn new(sources: Vec<NamedSource>, manifest: &Manifest, dir: &Path) -> Parts {
        let part = |NamedSource { split, source }: NamedSource| {
            let labels = labels_of(&source, manifest);
            Part { split, source, labels, by_key: OnceLock::new() }
        };
        // A list that cannot be read is said to be so elsewhere; here keys do as well.
        let records = QuarantineReader::open(dir, manifest).into_iter().flatten();
        let numbers = records.map(|record| record.map(|record| record.index));
        let skipped: Vec<usize> = numbers.collect::<Result<_, _>>().unwrap_or_default();
        Parts { parts: sources.into_iter().map(part).collect(), splits: manifest.splits.clone(), skipped }
    }

    /// Images of all of them.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.source.len()).sum()
    }

    /// One line for people.
    pub(super) fn describe(&self) -> String {
        self.parts.iter().map(|part| part.source.describe()).collect::<Vec<_>>().join("; ")
    }

    /// Where an image of the cache is: usually at its number, else where its key is, in a source of its split.
    pub(super) fn find(&self, key: &str, image: usize) -> Result<ImagePosition, Refusal> {
        let number = number(&self.skipped, image);
        let split = Split::name_of(&self.splits, number);
        let is_it = |position: &ImagePosition| {
            let part = &self.parts[position.part];
            part.split == split && part.source.key(position.index) == key
        };
        let by_number = self.at(number).filter(is_it);
        let by_key = || {
            let mut of_split = self.parts.iter().enumerate().filter(|(_, part)| part.split == split);
            of_split.find_map(|(at, part)| Some(ImagePosition { part: at, index: part.find(key)? }))
        };
        let which = if split.is_empty() { String::new() } else { format!(" of the split {}", printable(split, 64)) };
        by_number
            .or_else(by_key)
            .ok_or_else(|| Refusal::Missing(format!("the source{which} has no image `{}`", printable(key, 200))))
    }

    /// The image of a number, counted through all sources.
    fn at(&self, number: usize) -> Option<ImagePosition> {
        let mut start = 0;
        for (part, Part { source, .. }) in self.parts.iter().enumerate() {
            if number < start + source.len() {
                return Some(ImagePosition { part, index: number - start });
            }
            start += source.len();
        }
        None
    }

    /// Reads an image's file.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub(super) fn read(&self, position: ImagePosition, into: &mut Vec<u8>) -> std::io::Result<()> {
        self.parts[position.part].source.read(position.index, into)
    }

    /// The label of an image.
    pub(super) fn label(&self, position: ImagePosition) -> i32 {
        let Part { source, labels, .. } = &self.parts[position.part];
        let label = source.label(position.index);
        let known = usize::try_from(label).ok().and_then(|label| labels.as_ref()?.get(label).copied());
        known.unwrap_or(label)
    }
}

impl Part {
    fn find(&self, key: &str) -> Option<usize> {
        let all = || (0..self.source.len()).map(|index| (self.source.key(index).to_owned(), index)).collect();
        self.by_key.get_or_init(all).get(key).copied()
    }
}

/// The number in the sources of the cache's `image`-th image: those in `skipped` have no rows.
fn number(skipped: &[usize], image: usize) -> usize {
    let (mut low, mut high) = (0, skipped.len());
    while low < high {
        let middle = low + (high - low) / 2;
        // The difference is the number of images with rows before the skipped one.
        if skipped[middle] - middle <= image {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    image + low
}

/// For each label of the source, the label of the class of that name in the cache. `None` where the source has a class
/// that the cache does not have, or none where the cache has some.
fn labels_of(source: &Source, manifest: &Manifest) -> Option<Vec<i32>> {
    if source.classes().is_empty() || manifest.classes.is_empty() {
        return None;
    }
    let by_name: HashMap<&str, i32> = manifest.classes.iter().map(String::as_str).zip(0..).collect();
    source.classes().iter().map(|name| by_name.get(name.as_str()).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_rows_are_counted_over() {
        let numbers = |skipped: &[usize]| (0..4).map(|image| number(skipped, image)).collect::<Vec<_>>();
        assert_eq!(numbers(&[]), [0, 1, 2, 3]);
        assert_eq!(numbers(&[0, 1, 3, 6]), [2, 4, 5, 7]);
        assert_eq!(numbers(&[9]), [0, 1, 2, 3]);
    }
}
