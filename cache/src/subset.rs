//! A smaller cache out of a larger one.

use std::ops::Range;
use std::path::Path;

use crate::error::CacheError;
use crate::job::{JobSpec, SourceInfo, Split};
use crate::reader::TokenCache;
use crate::writer::{CacheWriter, Finished, OpenMode};

/// Which rows of a cache to take. Every condition that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Classes, by name or by index as text.
    pub classes: Option<Vec<String>>,
    /// The first images, this many, of those that the other conditions leave.
    pub limit: Option<usize>,
    /// Views, which follow each other.
    pub views: Option<Range<u32>>,
    /// The images of one split.
    pub split: Option<String>,
}

/// Writes the rows of the cache `input` that `selection` takes to the new cache `out`. Class names and labels stay as
/// they are, keys and crops too; the rows of images in quarantine are not there to be taken.
///
/// # Errors
/// [`CacheError::Selection`] naming the class, view or split that the cache does not have; as [`TokenCache::open`] and
/// [`CacheWriter`].
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
    let labels = selection.labels(&cache)?;
    let views = selection.view_range(&cache)?;
    let within = match &selection.split {
        None => 0..cache.num_images(),
        Some(name) => cache.split_images(name).ok_or_else(|| no_split(&cache, name))?,
    };
    let wanted = |image: &usize| labels.as_ref().is_none_or(|labels| labels.contains(&cache.image_label(*image)));
    let images: Vec<usize> = within.filter(wanted).take(selection.limit.unwrap_or(usize::MAX)).collect();
    let job = selection.job(&cache, &images, &views)?;

    let mut writer = CacheWriter::open(out, job, mode)?;
    let mut next = writer.next_image();
    let Some((first, last)) = images.get(next).zip(images.last()) else {
        return writer.finish();
    };
    let first_view = cache.manifest().first_view;
    let columns = (views.start - first_view) as usize..(views.end - first_view) as usize;
    let is_wanted = |image| images.binary_search(&image).is_ok();
    cache.visit_images(*first..last + 1, &is_wanted, &mut |_, rows| {
        writer.push_image(next, &rows[columns.clone()])?;
        next += 1;
        Ok(())
    })?;
    writer.finish()
}

impl Selection {
    fn labels(&self, cache: &TokenCache) -> Result<Option<Vec<i32>>, CacheError> {
        let classes = &cache.manifest().classes;
        let label = |wanted: &String| {
            let by_name = classes.iter().position(|class| class == wanted).map(|label| label as i32);
            let by_index = || wanted.parse().ok().filter(|label| classes.is_empty() || *label < classes.len() as i32);
            by_name.or_else(by_index).ok_or_else(|| CacheError::Selection {
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

    /// The job of the subset. Its source says what was taken of what, so that another subset is another job.
    fn job(&self, cache: &TokenCache, images: &[usize], views: &Range<u32>) -> Result<JobSpec, CacheError> {
        let manifest = cache.manifest();
        let mut job = JobSpec::of(manifest)?;
        let left_out = manifest.source.images - images.len();
        job.source = SourceInfo {
            kind: "subset".to_owned(),
            location: format!(
                "{} (content {}; classes {}, limit {}, split {})",
                manifest.source.location,
                manifest.content_hash,
                self.classes.as_ref().map_or("all".to_owned(), |classes| classes.join(",")),
                self.limit.map_or("none".to_owned(), |limit| limit.to_string()),
                self.split.as_deref().unwrap_or("all"),
            ),
            images: images.len(),
            excluded: manifest.source.excluded + left_out,
        };
        (job.first_view, job.num_views) = (views.start, views.end - views.start);
        job.splits = match &self.split {
            Some(_) => Vec::new(),
            None => remaining_splits(cache, images),
        };
        Ok(job)
    }
}

/// The splits, counted in the images that are taken.
fn remaining_splits(cache: &TokenCache, images: &[usize]) -> Vec<Split> {
    let remaining = |split: &Split| {
        let range = cache.split_images(&split.name).unwrap_or_default();
        let below = |end: usize| images.partition_point(|image| *image < end);
        Split { name: split.name.clone(), images: [below(range.start), below(range.end)] }
    };
    cache.manifest().splits.iter().map(remaining).collect()
}

fn no_split(cache: &TokenCache, name: &str) -> CacheError {
    let names: Vec<_> = cache.manifest().splits.iter().map(|split| split.name.as_str()).collect();
    let expected = if names.is_empty() { "none: it has no splits".to_owned() } else { names.join(", ") };
    CacheError::Selection { path: cache.dir().into(), what: "split", expected, actual: name.to_owned() }
}
