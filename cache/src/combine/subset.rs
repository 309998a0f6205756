//! A smaller cache out of a larger one.

use crate::combine::attachments::{details_of, of_subset};
use crate::error::CacheError;
use crate::format::identity::SourceInfo;
use crate::format::job::JobSpec;
use crate::format::split::Split;
use crate::inspect::class_names::ClassNames;
use crate::progress::copied;
use crate::read::cache::TokenCache;
use crate::write::attach::{attach_all, described, remove_replaced};
use crate::write::writer::{CacheWriter, Finished, OpenMode};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

/// Which rows of a cache to take. Every condition that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Classes, by name, by index as text, or by a readable name: see [`ClassNames`].
    pub classes: Option<Vec<String>>,
    /// The first images, this many, of those that the other conditions leave.
    pub limit: Option<usize>,
    /// Views, which follow each other.
    pub views: Option<Range<u32>>,
    /// The images of one split.
    pub split: Option<String>,
    /// Images by their numbers, in ascending order: see [`images_of_keys`].
    pub images: Option<Vec<usize>>,
    /// Images by ranges of their numbers, in ascending order and apart from each other: little memory for many images.
    pub image_ranges: Option<Vec<Range<usize>>>,
}

/// Writes the rows of the cache `input` that `selection` takes to the new cache `out`. Class names and labels stay as
/// they are, keys and crops too; the rows of images in quarantine are not there to be taken. Files that are kept beside
/// the rows are kept; of those with an entry per image, the entries of the images that are taken.
///
/// # Errors
/// [`CacheError::Import`] for a file beside the rows that is missing or altered;
/// [`CacheError::Selection`] naming the class, view or split that the cache does not have; as [`TokenCache::open`],
/// [`CacheWriter::open`] and [`CacheWriter::push_image`].
///
/// ```
/// use tokengrid_cache::{OpenMode, Selection, TokenCache, subset, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (dir, out) = (&folder.path().join("cache"), &folder.path().join("small"));
/// write_synthetic_cache(dir, 100, 4)?;
/// let selection = Selection { limit: Some(10), views: Some(0..1), ..Selection::default() };
/// subset(dir, out, &selection, OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(out)?.num_rows(), 10);
/// # Ok(()) }
/// ```
pub fn subset(input: &Path, out: &Path, selection: &Selection, mode: OpenMode) -> Result<Finished, CacheError> {
    let cache = TokenCache::open(input)?;
    let views = selection.view_range(&cache)?;
    let taken = Taken::new(&cache, selection)?;
    let mut job = selection.job(&taken, &views)?;
    let images = || -> Box<dyn Iterator<Item = usize> + '_> { Box::new(taken.images()) };
    let num_images = job.source.images;
    if num_images == 0 {
        let (expected, actual) = ("one that some image has".to_owned(), "nothing".to_owned());
        return Err(CacheError::Selection { path: cache.dir().into(), what: "selection", expected, actual });
    }
    let attachments = of_subset(&cache, num_images, &images)?;
    job.source.attached = described(&attachments);

    let mut writer = CacheWriter::open(out, job, mode)?;
    remove_replaced(out, mode)?;
    let mut next = writer.next_image();
    if let Some(first) = taken.images().nth(next) {
        let first_view = cache.manifest().first_view;
        let columns = (views.start - first_view) as usize..(views.end - first_view) as usize;
        cache.visit_images(first..taken.within.end, &|image| taken.has(image), &mut |_, rows| {
            writer.push_image(next, &rows[columns.clone()])?;
            next += 1;
            copied(next, num_images);
            Ok(())
        })?;
    }
    let finished = writer.finish()?;
    attach_all(&attachments, out)?;
    ClassNames::carry(cache.local_dir(), out, &cache.manifest().classes)?;
    Ok(finished)
}

/// The images of some keys, in ascending order: all of a key that several splits have.
///
/// # Errors
/// [`CacheError::Selection`] naming a key that the cache does not have; the keys are damaged.
pub fn images_of_keys(cache: &TokenCache, keys: &HashSet<String>) -> Result<Vec<usize>, CacheError> {
    let (mut images, mut found) = (Vec::new(), HashSet::new());
    cache.visit_keys(0..cache.num_images(), &mut |image, key| {
        if let Some(key) = keys.get(key) {
            images.push(image);
            found.insert(key.as_str());
        }
        Ok(())
    })?;
    // The first by their order, so that the same list gives the same message.
    match keys.iter().filter(|key| !found.contains(key.as_str())).min() {
        Some(missing) => Err(CacheError::Selection {
            path: cache.dir().into(),
            what: "key",
            expected: format!("keys of its {} images", cache.num_images()),
            actual: missing.clone(),
        }),
        None => Ok(images),
    }
}

/// The images that are taken. Membership is decided by their labels, which are in memory, instead of a list of images.
struct Taken<'a> {
    cache: &'a TokenCache,
    /// No image outside is taken.
    within: Range<usize>,
    labels: Option<HashSet<i32>>,
    images: Option<&'a [usize]>,
    ranges: Option<&'a [Range<usize>]>,
}

impl Taken<'_> {
    fn new<'a>(cache: &'a TokenCache, selection: &'a Selection) -> Result<Taken<'a>, CacheError> {
        let within = match &selection.split {
            None => 0..cache.num_images(),
            Some(name) => cache.split_images(name).ok_or_else(|| no_split(cache, name))?,
        };
        let (images, ranges) = (selection.images.as_deref(), selection.image_ranges.as_deref());
        if let Some(image) = selection.listed_images().find(|image| *image >= cache.num_images()) {
            return Err(CacheError::Selection {
                path: cache.dir().into(),
                what: "image",
                expected: format!("a number below {}", cache.num_images()),
                actual: image.to_string(),
            });
        }
        let mut taken = Taken { cache, within, labels: selection.labels(cache)?, images, ranges };
        let first_too_many = selection.limit.and_then(|limit| taken.images().nth(limit));
        taken.within.end = first_too_many.unwrap_or(taken.within.end);
        Ok(taken)
    }

    fn has(&self, image: usize) -> bool {
        let is_of_class = |labels: &HashSet<i32>| labels.contains(&self.cache.image_label(image));
        let is_listed = |images: &[usize]| images.binary_search(&image).is_ok();
        let is_in_range = |ranges: &[Range<usize>]| {
            let place = ranges.partition_point(|range| range.end <= image);
            ranges.get(place).is_some_and(|range| range.contains(&image))
        };
        self.within.contains(&image)
            && self.labels.as_ref().is_none_or(is_of_class)
            && self.images.is_none_or(is_listed)
            && self.ranges.is_none_or(is_in_range)
    }

    fn images(&self) -> impl Iterator<Item = usize> {
        self.within.clone().filter(|image| self.has(*image))
    }

    /// How many of `images` are taken.
    fn count(&self, images: Range<usize>) -> usize {
        images.filter(|image| self.has(*image)).count()
    }
}

impl Selection {
    /// The images that were listed, by numbers or by ranges.
    fn listed_images(&self) -> impl Iterator<Item = usize> {
        let in_ranges = self.image_ranges.iter().flatten().cloned().flatten();
        self.images.iter().flatten().copied().chain(in_ranges)
    }

    fn labels(&self, cache: &TokenCache) -> Result<Option<HashSet<i32>>, CacheError> {
        let classes = &cache.manifest().classes;
        let names = ClassNames::load(cache.local_dir(), classes).unwrap_or_default();
        let by_meaning = |wanted: &str| match names.find(wanted).as_slice() {
            [label] => Some(*label),
            _ => None,
        };
        let label = |wanted: &String| {
            let by_name = classes.iter().position(|class| class == wanted).map(|label| label as i32);
            let by_index = || wanted.parse().ok().filter(|label| classes.is_empty() || *label < classes.len() as i32);
            by_name.or_else(by_index).or_else(|| by_meaning(wanted)).ok_or_else(|| CacheError::Selection {
                path: cache.dir().into(),
                what: "class",
                expected: format!("a name or an index of the {} classes", classes.len()),
                actual: wanted.clone(),
            })
        };
        self.classes.as_ref().map(|wanted| wanted.iter().map(label).collect()).transpose()
    }

    fn view_range(&self, cache: &TokenCache) -> Result<Range<u32>, CacheError> {
        let all = cache.manifest().first_view..cache.manifest().first_view + cache.manifest().views;
        match &self.views {
            None => Ok(all),
            Some(views) if views.start >= all.start && views.end <= all.end && !views.is_empty() => Ok(views.clone()),
            Some(views) => Err(CacheError::Selection {
                path: cache.dir().into(),
                what: "range of views",
                expected: format!("within {all:?} and not empty"),
                actual: format!("{views:?}"),
            }),
        }
    }

    /// What tells a list of images from others: a subset of other images is another job.
    fn listed(&self) -> String {
        if self.images.is_none() && self.image_ranges.is_none() {
            return String::new();
        }
        let (mut hash, mut count) = (blake3::Hasher::new(), 0);
        for image in self.listed_images() {
            hash.update(&(image as u64).to_le_bytes());
            count += 1;
        }
        format!(", {count} listed images of blake3 {}", hash.finalize().to_hex())
    }

    /// The job of the subset. Its source says what was taken of what, so that another subset is another job.
    fn job(&self, taken: &Taken<'_>, views: &Range<u32>) -> Result<JobSpec, CacheError> {
        let manifest = taken.cache.manifest();
        let mut job = JobSpec::of(manifest)?;
        let images = taken.images().count();
        let left_out = manifest.source.images - images;
        job.source = SourceInfo {
            kind: "subset".to_owned(),
            location: format!(
                "{} (content {}; classes {}, limit {}, split {}{})",
                manifest.source.location,
                manifest.content_hash,
                self.classes.as_ref().map_or("all".to_owned(), |classes| classes.join(",")),
                self.limit.map_or("none".to_owned(), |limit| limit.to_string()),
                self.split.as_deref().unwrap_or("all"),
                self.listed(),
            ),
            images,
            excluded: manifest.source.excluded + left_out,
            details: details_of(taken.cache),
            ..SourceInfo::default()
        };
        (job.first_view, job.num_views) = (views.start, views.end - views.start);
        job.splits = match &self.split {
            Some(_) => Vec::new(),
            None => remaining_splits(taken),
        };
        Ok(job)
    }
}

/// The splits, counted in the images that are taken.
fn remaining_splits(taken: &Taken<'_>) -> Vec<Split> {
    let mut next = 0;
    let remaining = |(name, images): (&str, Range<usize>)| {
        let start = next;
        next += taken.count(images);
        Split { name: name.to_owned(), images: [start, next] }
    };
    taken.cache.splits().into_iter().map(remaining).collect()
}

fn no_split(cache: &TokenCache, name: &str) -> CacheError {
    let names: Vec<_> = cache.manifest().splits.iter().map(|split| split.name.as_str()).collect();
    let expected = if names.is_empty() { "none: it has no splits".to_owned() } else { names.join(", ") };
    CacheError::Selection { path: cache.dir().into(), what: "split", expected, actual: name.to_owned() }
}
