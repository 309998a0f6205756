//! WebDataset shards of our own export, which say all that a row says: the cache that they were written from.

use crate::error::CacheError;
use crate::files::token_samples::SampleInfo;
use crate::format::grid::GridSpec;
use crate::format::split::Split;
use crate::import::error::import_error;
use crate::import::importer::{Crop, ImportOptions, Importer, job_of};
use crate::import::seen_keys::{SeenKeys, TwoPlaces};
use crate::import::tar_members::TarMembers;
use crate::import::webdataset::visit_groups;
use crate::write::writer::{Finished, OpenMode};
use std::path::{Path, PathBuf};

/// Members of a sample.
const MEMBERS: usize = 3;

/// An image: samples that follow each other, one per view.
struct Image {
    shard: PathBuf,
    tokens: Vec<i64>,
    rows: Vec<SampleInfo>,
}

type VisitImage<'a> = dyn FnMut(Image) -> Result<(), CacheError> + 'a;

/// What the first sample of an export says; `None` for shards of other programs.
pub(super) fn first_row(shards: &[PathBuf]) -> Result<Option<SampleInfo>, CacheError> {
    let Some(shard) = shards.first() else { return Ok(None) };
    let mut archive = TarMembers::open(shard)?;
    for _ in 0..MEMBERS {
        let Some(member) = archive.next()? else { break };
        if member.name.ends_with(".json") {
            return Ok(serde_json::from_slice(&member.content).ok());
        }
    }
    Ok(None)
}

/// Imports shards whose first sample says `first`.
pub(super) fn import_exported(
    shards: &[PathBuf],
    first: &SampleInfo,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let grid = GridSpec::parse(&first.grid, first.bits)?;
    let mut counted = Counted::default();
    visit_images(shards, &mut |image| counted.add(&image))?;
    if let Some(hash) = std::mem::take(&mut counted.keys).repeated() {
        refuse_repeated(shards, hash)?;
    }
    let place = shards.first().cloned().unwrap_or_default();
    let given = (options.grid, options.views as usize);
    if given.0 != (0, 0) && given.0 != (grid.height, grid.width) || ![0, counted.views].contains(&given.1) {
        let actual = format!("grids of {}x{}, {} views", given.0.0, given.0.1, given.1);
        return Err(import_error(&place, "shape", format!("grids of {}, {} views", first.grid, counted.views), actual));
    }
    let mut options = options.clone();
    (options.grid, options.views) = ((grid.height, grid.width), counted.views as u32);
    let mut job = job_of(&place, counted.images, options.bits.unwrap_or(first.bits), &options)?;
    (job.first_view, job.splits) = (first.view, counted.splits);
    let mut importer = Importer::of(&place, job, &options.key_prefix, out, mode)?;
    let mut number = 0;
    visit_images(shards, &mut |Image { tokens, rows, .. }| {
        let crop_of = |view: usize| {
            rows.get(view).map_or(Crop::default(), |row| Crop { x: row.crop_x, y: row.crop_y, flip: row.flip })
        };
        importer.push_views(number, &tokens, rows[0].label.into(), &rows[0].key, &crop_of)?;
        number += 1;
        Ok(())
    })?;
    importer.writer.finish()
}

/// What a first pass learns.
#[derive(Default)]
struct Counted {
    images: usize,
    /// Of each image, and their tokens together.
    views: usize,
    num_tokens: usize,
    splits: Vec<Split>,
    keys: SeenKeys,
}

impl Counted {
    fn add(&mut self, image: &Image) -> Result<(), CacheError> {
        let first = &image.rows[0];
        let found = (image.rows.len(), image.tokens.len());
        if self.images == 0 {
            (self.views, self.num_tokens) = found;
        }
        if found != (self.views, self.num_tokens) {
            let expected =
                format!("{} views, {} tokens, as the first image (key {})", self.views, self.num_tokens, first.key);
            return Err(import_error(
                &image.shard,
                "image",
                expected,
                format!("{} views, {} tokens", found.0, found.1),
            ));
        }
        self.keys.add(&named(first));
        let is_last = self.splits.last().map_or("", |last| &last.name) == first.split;
        let is_known = self.splits.iter().any(|known| known.name == first.split);
        if self.images > 0 && !is_last && (is_known || first.split.is_empty() || self.splits.is_empty()) {
            let expected = format!("each split in one piece (key {})", first.key);
            return Err(import_error(&image.shard, "split", expected, format!("`{}`", first.split)));
        }
        let end = self.images + 1;
        match self.splits.last_mut() {
            Some(last) if is_last => last.images[1] = end,
            _ if is_last => {}
            _ => self.splits.push(Split { name: first.split.clone(), images: [self.images, end] }),
        }
        self.images = end;
        Ok(())
    }
}

/// An image's name among all: splits may share keys.
fn named(row: &SampleInfo) -> String {
    format!("{}\0{}", row.split, row.key)
}

/// The error for an image that is there twice, by its hash.
fn refuse_repeated(shards: &[PathBuf], hash: u64) -> Result<(), CacheError> {
    let mut places = TwoPlaces::of(hash);
    visit_images(shards, &mut |image| {
        let place = || image.shard.display().to_string();
        match places.take(&named(&image.rows[0]), place) {
            None => Ok(()),
            Some(first) => {
                let expected = format!("another key than that of an image of {first}: give each shard once");
                Err(import_error(&image.shard, "key", expected, &image.rows[0].key))
            }
        }
    })
}

fn visit_images(shards: &[PathBuf], visit: &mut VisitImage<'_>) -> Result<(), CacheError> {
    let mut waiting: Option<Image> = None;
    visit_groups(shards, &mut |group| {
        let row = group.sample.as_ref().and_then(|sample| sample.row.clone());
        let (Some(sample), Some(row)) = (group.sample, row) else {
            let expected = "samples of one export, with the .json that it writes".to_owned();
            return Err(import_error(group.shard, "sample", expected, group.key));
        };
        match &mut waiting {
            Some(image) if is_next(&image.rows[image.rows.len() - 1], &row) => {
                image.tokens.extend(sample.tokens);
                image.rows.push(row);
                Ok(())
            }
            _ => {
                let image = Image { shard: group.shard.to_owned(), tokens: sample.tokens, rows: vec![row] };
                waiting.replace(image).map_or(Ok(()), &mut *visit)
            }
        }
    })?;
    waiting.map_or(Ok(()), visit)
}

/// Whether `next` is the next row of the same image.
fn is_next(last: &SampleInfo, next: &SampleInfo) -> bool {
    (&next.key, &next.split, next.view) == (&last.key, &last.split, last.view + 1)
}
