//! One cache out of several: parts of a data set, splits, or more views of the same images.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::CacheError;
use crate::group::Row;
use crate::job::{JobIdentity, JobSpec, SourceInfo, Split};
use crate::merge_keys::refuse_duplicates;
use crate::quarantine::{QuarantineReader, QuarantineRecord};
use crate::reader::{RowMeta, TokenCache};
use crate::writer::{CopyWriter, Finished, OpenMode};

/// Rows of all inputs together that a merge of views holds at a time.
const MERGE_ROWS: usize = 16_384;

/// One cache to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeInput {
    /// Its folder.
    pub dir: PathBuf,
    /// The split that its images become; `None` keeps the splits that it has (or that there are none).
    pub split: Option<String>,
}

impl MergeInput {
    /// A cache whose images belong to no split of their own.
    pub fn new(dir: impl Into<PathBuf>) -> MergeInput {
        MergeInput { dir: dir.into(), split: None }
    }
}

/// Merges caches of one tokenizer and recipe into the new cache `out`, which is written as any other: a merge that was
/// killed goes on where it stopped, after comparing what is there with what the inputs give.
///
/// Inputs whose views begin at the same number are different images: they follow each other in the order given, classes
/// are united by name (labels are renumbered where the lists differ, which then must be sorted). Two half runs merge to
/// the content hash of one full run. Inputs whose views begin at different numbers are more views of the same images
/// ([`JobSpec::first_view`]); the result is the cache that the job of the last ones would have written with all of
/// them.
///
/// # Errors
/// [`CacheError::CachesDiffer`] naming the field in which an input differs from the first one;
/// [`CacheError::DuplicateKey`]; [`CacheError::InputsDiffer`] when `out` was begun with other rows; the variant that names the damage of an input; as [`CacheWriter`](crate::CacheWriter).
///
/// ```
/// # use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, MergeInput, OpenMode, Row, TokenCache, merge};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (a, b, out) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("out"));
/// # for (dir, key) in [(&a, "a.png"), (&b, "b.png")] {
/// #     let mut writer =
/// #         CacheWriter::open(dir, JobSpec::new(GridSpec { height: 1, width: 1, bits: 2 }, 1, 1), OpenMode::Resume)?;
/// #     writer.push_image(0, &[Row { tokens: &[1], label: 0, key, view: 0, crop_x: 0, crop_y: 0, flip: false }])?;
/// #     writer.finish()?;
/// # }
/// merge(&out, &[MergeInput::new(&a), MergeInput::new(&b)], OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(&out)?.num_images(), 2);
/// # Ok(()) }
/// ```
pub fn merge(out: &Path, inputs: &[MergeInput], mode: OpenMode) -> Result<Finished, CacheError> {
    let opened: Result<Vec<_>, _> = inputs.iter().map(Input::open).collect();
    let mut opened = opened?;
    let first = opened.first().ok_or(CacheError::NothingToMerge)?.identity.first_view;
    if opened.iter().all(|input| input.identity.first_view == first) {
        let (job, relabel) = joined_job(&opened)?;
        refuse_duplicates(&opened)?;
        append(out, job, &opened, &relabel, mode)
    } else {
        opened.sort_by_key(|input| input.identity.first_view);
        let job = widened_job(&opened)?;
        interleave(out, job, &opened, mode)
    }
}

/// A cache to merge, open.
pub(crate) struct Input {
    pub(crate) cache: TokenCache,
    pub(crate) identity: JobIdentity,
    pub(crate) split: Option<String>,
}

impl Input {
    fn open(input: &MergeInput) -> Result<Input, CacheError> {
        let cache = TokenCache::open(&input.dir)?;
        let input = Input { identity: cache.manifest().identity(), cache, split: input.split.clone() };
        // An altered list is refused before anything is written.
        input.quarantined()?.try_for_each(|record| record.map(drop))?;
        Ok(input)
    }

    fn quarantined(&self) -> Result<QuarantineReader, CacheError> {
        QuarantineReader::open(self.cache.dir(), self.cache.manifest())
    }

    fn images(&self) -> usize {
        self.identity.source.images
    }

    /// Images with rows.
    pub(crate) fn num_encoded(&self) -> usize {
        self.cache.num_images()
    }

    /// The images of the source: runs of encoded ones, by their number in the cache, and quarantined ones.
    pub(crate) fn pieces(&self) -> Result<Pieces, CacheError> {
        let (records, images) = (Some(self.quarantined()?), self.images());
        Ok(Pieces { records, images, next: 0, num_quarantined: 0, held: None })
    }

    fn differs(&self, from: &Input, field: impl Into<String>, expected: String, actual: String) -> CacheError {
        let (path, other) = (from.cache.dir().to_owned(), self.cache.dir().to_owned());
        CacheError::CachesDiffer { path, other, field: field.into(), expected, actual }
    }
}

pub(crate) enum Piece {
    /// Images by their number in the cache; the first one's number in the source.
    Encoded {
        images: Range<usize>,
        source: usize,
    },
    Quarantined(QuarantineRecord),
}

/// The pieces of an input, in order: see [`Input::pieces`].
pub(crate) struct Pieces {
    /// `None` once all were read.
    records: Option<QuarantineReader>,
    images: usize,
    /// The next image of the source.
    next: usize,
    num_quarantined: usize,
    /// What comes next.
    held: Option<QuarantineRecord>,
}

impl Iterator for Pieces {
    type Item = Result<Piece, CacheError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.held.take() {
            self.next = record.index + 1;
            self.num_quarantined += 1;
            return Some(Ok(Piece::Quarantined(record)));
        }
        let end = match self.records.as_mut()?.next() {
            Some(Ok(record)) => self.held.insert(record).index,
            Some(Err(error)) => return Some(Err(error)),
            None => {
                self.records = None;
                self.images
            }
        };
        let (source, before) = (self.next, self.num_quarantined);
        Some(Ok(Piece::Encoded { images: source - before..end - before, source }))
    }
}

/// Whether the same images of two inputs are without rows.
fn same_quarantine(a: &Input, b: &Input) -> Result<bool, CacheError> {
    let (mut a, mut b) = (a.quarantined()?, b.quarantined()?);
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) if a.index == b.index => {}
            _ => return Ok(false),
        }
    }
}

/// The job of caches that follow each other, and for each of them the new number of each class.
fn joined_job(inputs: &[Input]) -> Result<(JobSpec, Vec<Vec<i32>>), CacheError> {
    let first = &inputs[0];
    for input in &inputs[1..] {
        // What may differ is taken out of the comparison.
        let comparable = |input: &Input| JobIdentity {
            source: SourceInfo::default(),
            classes: Vec::new(),
            splits: Vec::new(),
            ..input.identity.clone()
        };
        if let Some((field, expected, actual)) = comparable(first).first_difference(&comparable(input)) {
            return Err(input.differs(first, field, expected, actual));
        }
    }
    let classes = united_classes(inputs)?;
    let new_label = |name: &String| classes.iter().position(|class| class == name).map_or(-1, |label| label as i32);
    let relabel = inputs.iter().map(|input| input.identity.classes.iter().map(new_label).collect()).collect();
    let sources: Vec<_> = inputs.iter().map(|input| &input.identity.source).collect();
    let locations: Vec<_> = sources.iter().map(|source| source.location.as_str()).collect();
    let mut job = JobSpec::from_identity(JobIdentity { classes, ..first.identity.clone() })?;
    job.source = SourceInfo {
        kind: "merge".to_owned(),
        location: locations.join(" + "),
        images: sources.iter().map(|source| source.images).sum(),
        excluded: sources.iter().map(|source| source.excluded).sum(),
    };
    job.splits = joined_splits(inputs)?;
    Ok((job, relabel))
}

/// The common class list, or the sorted union of sorted ones: the list of a run over all of the folders.
fn united_classes(inputs: &[Input]) -> Result<Vec<String>, CacheError> {
    let first = &inputs[0];
    if inputs.iter().all(|input| input.identity.classes == first.identity.classes) {
        return Ok(first.identity.classes.clone());
    }
    for input in inputs {
        let classes = &input.identity.classes;
        if classes.is_empty() || !classes.is_sorted_by(|a, b| a < b) {
            let actual = format!("a list of {} that is not sorted", classes.len());
            return Err(input.differs(first, "classes", "the same list, or sorted lists of names".into(), actual));
        }
    }
    let union: BTreeSet<_> = inputs.iter().flat_map(|input| input.identity.classes.iter().cloned()).collect();
    Ok(union.into_iter().collect())
}

/// The splits in order. Either every image belongs to one or none does.
fn joined_splits(inputs: &[Input]) -> Result<Vec<Split>, CacheError> {
    let mut splits: Vec<Split> = Vec::new();
    let mut start = 0;
    for input in inputs {
        let whole = input.split.clone().map(|name| Split { name, images: [0, input.images()] });
        let own = whole.map_or_else(|| input.identity.splits.clone(), |split| vec![split]);
        if own.is_empty() != splits.is_empty() && start > 0 {
            let expected = "a split for every input or for none".to_owned();
            return Err(input.differs(&inputs[0], "splits", expected, format!("{} splits", own.len())));
        }
        for Split { name, images: [from, to] } in own {
            let images = [start + from, start + to];
            match splits.last_mut() {
                // Two parts of one split in a row are one.
                Some(last) if last.name == name => last.images[1] = images[1],
                _ => splits.push(Split { name, images }),
            }
        }
        start += input.images();
    }
    Ok(splits)
}

/// Writes the inputs one after the other.
fn append(
    out: &Path,
    job: JobSpec,
    inputs: &[Input],
    relabel: &[Vec<i32>],
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let mut writer = CopyWriter::open(out, job, mode)?;
    let mut next = 0;
    for (input, labels) in inputs.iter().zip(relabel) {
        for piece in input.pieces()? {
            match piece? {
                Piece::Quarantined(record) => {
                    writer.quarantine(next, &record.key, &record.stage, &record.reason)?;
                    next += 1;
                }
                Piece::Encoded { images, .. } => {
                    input.cache.visit_images(images, &|_| true, &mut |_, rows| {
                        let renumbered = |label: i32| labels.get(label as usize).copied().unwrap_or(label);
                        let rows: Vec<_> =
                            rows.iter().map(|row| Row { label: renumbered(row.label), ..*row }).collect();
                        writer.push_image(next, &rows)?;
                        next += 1;
                        Ok(())
                    })?;
                }
            }
        }
    }
    writer.finish()
}

/// The job of caches of the same images whose views follow each other.
fn widened_job(inputs: &[Input]) -> Result<JobSpec, CacheError> {
    let first = &inputs[0];
    let comparable = |input: &Input| {
        let mut identity = JobIdentity { views: 0, first_view: 0, ..input.identity.clone() };
        // The recipe's name of the views is what makes the difference.
        if let Some(recipe) = identity.recipe.as_object_mut() {
            recipe.remove("views");
        }
        identity
    };
    let mut next_view = first.identity.first_view;
    for input in inputs {
        if let Some((field, expected, actual)) = comparable(first).first_difference(&comparable(input)) {
            return Err(input.differs(first, field, expected, actual));
        }
        if !views_extend(&first.identity.recipe, &input.identity.recipe) {
            let views = |recipe: &Value| recipe.get("views").map_or("unknown".to_string(), Value::to_string);
            let expected = format!("what goes on from {}", views(&first.identity.recipe));
            return Err(input.differs(first, "recipe.views", expected, views(&input.identity.recipe)));
        }
        if input.identity.first_view != next_view {
            let actual = input.identity.first_view.to_string();
            return Err(input.differs(first, "first_view", next_view.to_string(), actual));
        }
        next_view += input.identity.views;
        if !same_quarantine(input, first)? {
            let num_quarantined = |input: &Input| input.cache.manifest().quarantine.images;
            let count = |input: &Input| format!("{} images of other numbers", num_quarantined(input));
            return Err(input.differs(first, "quarantine", count(first), count(input)));
        }
    }
    let last = &inputs[inputs.len() - 1].identity;
    let first_view = first.identity.first_view;
    JobSpec::from_identity(JobIdentity { views: next_view - first_view, first_view, ..last.clone() })
}

/// Whether the first views by the recipe `more` are those by the recipe `few`: the same kind of views, of which `more` has
/// more (`random-crop:4` and `random-crop:8`), or one that begins as the other (`center` and `center+flip`).
pub fn views_extend(few: &Value, more: &Value) -> bool {
    let kind = |recipe: &Value| {
        let views = recipe.get("views").and_then(Value::as_str).unwrap_or_default();
        views.split(':').next().unwrap_or_default().to_string()
    };
    let (few, more) = (kind(few), kind(more));
    more == few || more.strip_prefix(&few).is_some_and(|rest| rest.starts_with('+'))
}

/// Writes all views of each image, from every input in turn.
fn interleave(out: &Path, job: JobSpec, inputs: &[Input], mode: OpenMode) -> Result<Finished, CacheError> {
    let block = (MERGE_ROWS / job.num_views as usize).max(1);
    let mut writer = CopyWriter::open(out, job, mode)?;
    let mut next = 0;
    for piece in inputs[0].pieces()? {
        match piece? {
            Piece::Quarantined(record) => {
                writer.quarantine(next, &record.key, &record.stage, &record.reason)?;
                next += 1;
            }
            Piece::Encoded { images, .. } => {
                for start in images.clone().step_by(block) {
                    let images = start..(start + block).min(images.end);
                    let parts: Result<Vec<_>, _> = inputs.iter().map(|input| Part::read(input, &images)).collect();
                    let parts = parts?;
                    for image in 0..images.len() {
                        let rows: Vec<_> = parts.iter().flat_map(|part| part.rows(image)).collect();
                        writer.push_image(next, &rows)?;
                        next += 1;
                    }
                }
            }
        }
    }
    writer.finish()
}

/// Some images of one input, in memory.
struct Part {
    metas: Vec<RowMeta>,
    tokens: Vec<u32>,
    views: usize,
    num_tokens: usize,
}

impl Part {
    fn read(input: &Input, images: &Range<usize>) -> Result<Part, CacheError> {
        let (views, num_tokens) = (input.cache.num_views(), input.cache.grid().num_tokens());
        let rows = images.start * views..images.end * views;
        let mut tokens = Vec::with_capacity(rows.len() * num_tokens);
        input.cache.visit_images(images.clone(), &|_| true, &mut |_, rows| {
            rows.iter().for_each(|row| tokens.extend_from_slice(row.tokens));
            Ok(())
        })?;
        Ok(Part { metas: input.cache.metas(rows)?, tokens, views, num_tokens })
    }

    fn rows(&self, image: usize) -> impl Iterator<Item = Row<'_>> {
        let rows = image * self.views..(image + 1) * self.views;
        rows.map(|row| self.metas[row].row(&self.tokens[row * self.num_tokens..][..self.num_tokens]))
    }
}
