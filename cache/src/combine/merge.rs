//! One cache out of several: parts of a data set, splits, or more views of the same images.

use crate::combine::attachments::{joined_details, of_copy, of_merge};
use crate::combine::input::{Input, MergeInput, Piece};
use crate::combine::jobs::{joined_job, widened_job};
use crate::combine::shared_keys::refuse_duplicates;
use crate::error::CacheError;
use crate::format::job::JobSpec;
use crate::format::row::{Row, RowMeta};
use crate::inspect::class_names::ClassNames;
use crate::write::attach::{attach_all, described, remove_replaced};
use crate::write::copy::CopyWriter;
use crate::write::writer::{Finished, OpenMode};
use std::ops::Range;
use std::path::Path;

/// Rows of all inputs together that a merge of views holds at a time.
const MERGE_ROWS: usize = 16_384;

/// Merges caches of one tokenizer and recipe into the new cache `out`, which is written as any other: a merge that was
/// killed goes on where it stopped, after comparing what is there with what the inputs give.
///
/// Inputs whose views begin at the same number are different images: they follow each other in the order given, classes
/// are united by name (labels are renumbered where the lists differ, which then must be sorted). Two half runs merge to
/// the content hash of one full run. Inputs whose views begin at different numbers are more views of the same images
/// ([`JobSpec::first_view`]); the result is the cache that the job of the last ones would have written with all of
/// them.
///
/// Of video frames, the columns `segment` and `frame` stay; rows of other caches have -1 there. Files that are kept beside
/// the rows stay one file where all inputs have an equal one, or one with an entry per image; all others are kept below
/// `input-<number>/`.
///
/// # Errors
/// [`CacheError::CachesDiffer`] naming the field in which an input differs from the first one;
/// [`CacheError::DuplicateKey`]; [`CacheError::NothingToMerge`] without inputs; [`CacheError::InputsDiffer`] when `out` was
/// begun with other rows; as [`TokenCache::open`](crate::TokenCache::open) and
/// [`TokenCache::meta`](crate::TokenCache::meta) for an input; as
/// [`CacheWriter::open`](crate::CacheWriter::open) and [`CacheWriter::push_image`](crate::CacheWriter::push_image) for `out`.
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
    let (finished, classes, attachments) = if opened.iter().all(|input| input.identity.first_view == first) {
        let (mut job, relabel) = joined_job(&opened)?;
        refuse_duplicates(&opened)?;
        job.source.details = joined_details(&opened);
        let attachments = of_merge(&opened, &job.source.details)?;
        job.source.attached = described(&attachments);
        let classes = job.classes.clone();
        (append(out, job, &opened, &relabel, mode)?, classes, attachments)
    } else {
        opened.sort_by_key(|input| input.identity.first_view);
        let job = widened_job(&opened)?;
        let classes = job.classes.clone();
        // Views of the same images: the same files beside them.
        let attachments = of_copy(&opened[opened.len() - 1].cache)?;
        (interleave(out, job, &opened, mode)?, classes, attachments)
    };
    attach_all(&attachments, out)?;
    opened.iter().try_for_each(|input| ClassNames::carry(input.cache.local_dir(), out, &classes))?;
    Ok(finished)
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
    remove_replaced(out, mode)?;
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

/// Writes all views of each image, from every input in turn.
fn interleave(out: &Path, job: JobSpec, inputs: &[Input], mode: OpenMode) -> Result<Finished, CacheError> {
    let block = (MERGE_ROWS / job.num_views as usize).max(1);
    let mut writer = CopyWriter::open(out, job, mode)?;
    remove_replaced(out, mode)?;
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
