//! A cache out of WebDataset shards of tokens: tar archives whose members are grouped by the name before the first dot.

use crate::cancel;
use crate::error::CacheError;
use crate::files::npy::NpyReader;
use crate::files::token_samples::SampleInfo;
use crate::format::grid::GridSpec;
use crate::format::split::Split;
use crate::import::error::import_error;
use crate::import::importer::{Crop, ImportOptions, Importer, job_of, square_of, width_of};
use crate::import::tar_members::{Member, TarMembers};
use crate::write::writer::{Finished, OpenMode};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Endings of the member with tokens, the first one that is there counts.
const TOKENS: [&str; 7] = ["tokens.npy", "token.npy", "codes.npy", "npy", "tokens.json", "codes.json", "json"];

/// The ending of the member with the class, as text.
const CLASS: &str = "cls";

/// What the members of one name are: an image with all of its views, or, by our export, one of its rows.
struct Sample {
    key: String,
    shard: PathBuf,
    tokens: Vec<i64>,
    label: i64,
    /// What our export says about the rows, each of which was a sample.
    rows: Vec<SampleInfo>,
}

impl Sample {
    /// Whether `next` is the next row of the same image.
    fn goes_on_with(&self, next: &Sample) -> bool {
        let (Some(last), Some(next)) = (self.rows.last(), next.rows.first()) else { return false };
        (&next.key, &next.split, next.view) == (&last.key, &last.split, last.view + 1)
    }
}

/// Imports the samples of `shards` in order. Tokens are a `.npy` of integers (`tokens.npy`, `codes.npy`, `npy`), or lists in a
/// `.json`, by themselves or as its `tokens`; the class is a number in `.cls`, or the `label`, `cls` or `class_id` of the `.json`.
/// The name before the first dot is the key. A sample of several grids has as many views. A grid of 0 x 0 stands for a square
/// one of as many tokens as a view has. Shards that [`crate::export_webdataset`] wrote give the cache that they were written from.
///
/// # Errors
/// [`CacheError::Import`] naming the sample; otherwise as [`crate::import_npy`].
pub fn import_webdataset(
    shards: &[PathBuf],
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    // Once to count, since a job knows its images from the beginning, and to learn how wide tokens are.
    let mut counted = Counted::default();
    visit_images(shards, &mut |image| counted.add(image))?;
    let Counted { images, largest, size, place, first_row, splits } = counted;
    if images == 0 {
        let shard = shards.first().cloned().unwrap_or_default();
        return Err(import_error(&shard, "number of samples with tokens", "at least 1".into(), 0));
    }
    let mut options = options.clone();
    if let Some(row) = &first_row {
        let grid = GridSpec::parse(&row.grid, row.bits)?;
        options.bits = options.bits.or(Some(row.bits));
        if options.grid == (0, 0) {
            options.grid = (grid.height, grid.width);
        }
    }
    if options.grid == (0, 0) {
        options.grid = square_of(&place, size / options.views.max(1) as usize)?;
    }
    let num_tokens = options.grid.0 as usize * options.grid.1 as usize;
    if num_tokens == 0 || !size.is_multiple_of(num_tokens) || size == 0 {
        return Err(import_error(&place, "number of tokens", format!("a multiple of {num_tokens}"), size));
    }
    options.views = (size / num_tokens) as u32;
    let bits = options.bits.unwrap_or_else(|| width_of(largest));
    let mut job = job_of(&place, images, bits, &options)?;
    job.first_view = first_row.map_or(0, |row| row.view);
    job.splits = splits;
    let mut importer = Importer::of(&place, job, &options.key_prefix, out, mode)?;
    let mut image = 0;
    visit_images(shards, &mut |Sample { key, tokens, label, rows, .. }| {
        let crop_of = |view: usize| {
            rows.get(view).map_or(Crop::default(), |row| Crop { x: row.crop_x, y: row.crop_y, flip: row.flip })
        };
        importer.push_views(image, &tokens, label, &key, &crop_of)?;
        image += 1;
        Ok(())
    })?;
    importer.writer.finish()
}

/// What a first pass learns.
#[derive(Default)]
struct Counted {
    images: usize,
    largest: i64,
    /// Tokens of an image, and the shard of the first one.
    size: usize,
    place: PathBuf,
    first_row: Option<SampleInfo>,
    splits: Vec<Split>,
}

impl Counted {
    fn add(&mut self, image: Sample) -> Result<(), CacheError> {
        if self.images == 0 {
            (self.size, self.place) = (image.tokens.len(), image.shard.clone());
            self.first_row = image.rows.first().cloned();
        }
        if image.tokens.len() != self.size {
            let expected = format!("{} as the first image's (sample {})", self.size, image.key);
            return Err(import_error(&image.shard, "number of tokens", expected, image.tokens.len()));
        }
        self.largest = image.tokens.into_iter().fold(self.largest, i64::max);
        let split = image.rows.first().map_or("", |row| &row.split);
        let is_last = self.splits.last().map_or("", |last| &last.name) == split;
        let is_known = self.splits.iter().any(|known| known.name == split);
        if self.images > 0 && !is_last && (is_known || split.is_empty() || self.splits.is_empty()) {
            let expected = format!("each split in one piece (sample {})", image.key);
            return Err(import_error(&image.shard, "split", expected, format!("`{split}`")));
        }
        let end = self.images + 1;
        match self.splits.last_mut() {
            Some(last) if is_last => last.images[1] = end,
            _ if is_last => {}
            _ => self.splits.push(Split { name: split.to_owned(), images: [self.images, end] }),
        }
        self.images = end;
        Ok(())
    }
}

/// Visits images: samples, or those of our export together that are rows of one image.
fn visit_images(shards: &[PathBuf], visit: &mut dyn FnMut(Sample) -> Result<(), CacheError>) -> Result<(), CacheError> {
    let mut waiting: Option<Sample> = None;
    visit_samples(shards, &mut |sample| match &mut waiting {
        Some(image) if image.goes_on_with(&sample) => {
            image.tokens.extend(sample.tokens);
            image.rows.extend(sample.rows);
            Ok(())
        }
        _ => waiting.replace(sample).map_or(Ok(()), &mut *visit),
    })?;
    waiting.map_or(Ok(()), visit)
}

fn visit_samples(
    shards: &[PathBuf],
    visit: &mut dyn FnMut(Sample) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    for shard in shards {
        let mut archive = TarMembers::open(shard)?;
        let (mut key, mut members) = (String::new(), Vec::new());
        while let Some(member) = archive.next()? {
            cancel::check()?;
            let Some((name, _)) = split_name(&member.name) else { continue };
            if name != key {
                let name = name.to_owned();
                finish_sample(shard, &key, std::mem::take(&mut members), visit)?;
                key = name;
            }
            members.push(member);
        }
        finish_sample(shard, &key, members, visit)?;
    }
    Ok(())
}

/// Key and ending: the file's name is cut at its first dot.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Hands on the sample of `members`, if there are tokens among them.
fn finish_sample(
    shard: &Path,
    key: &str,
    members: Vec<Member>,
    visit: &mut dyn FnMut(Sample) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let find = |ending: &str| members.iter().find(|member| split_name(&member.name).is_some_and(|(_, e)| e == ending));
    let Some((ending, member)) = TOKENS.iter().find_map(|ending| Some((*ending, find(ending)?))) else {
        return Ok(());
    };
    let refuse =
        |what, expected: &str, actual: String| import_error(shard, what, format!("{expected} (sample {key})"), actual);
    let json = |member: &Member| -> Result<serde_json::Value, CacheError> {
        serde_json::from_slice(&member.content).map_err(|error| refuse("JSON member", "JSON", error.to_string()))
    };
    let described = find("json").map(json).transpose()?.unwrap_or_default();
    let tokens = if ending.ends_with("npy") {
        let name = shard.join(&member.name);
        let content = member.content.clone();
        let bytes = content.len() as u64;
        let mut reader = NpyReader::of(&name, Box::new(Cursor::new(content)), bytes)?;
        let mut tokens = vec![0; reader.shape.iter().product()];
        reader.read(&mut tokens)?;
        tokens
    } else {
        let value = json(member)?;
        let list = if value.is_array() { &value } else { &value["tokens"] };
        let mut tokens = Vec::new();
        if !flatten(list, &mut tokens) {
            return Err(refuse("tokens", "a list of integers", list.to_string().chars().take(60).collect()));
        }
        tokens
    };
    let label = match find(CLASS) {
        Some(class) => {
            let text = String::from_utf8_lossy(&class.content).trim().to_owned();
            text.parse().map_err(|_| refuse("class", "a number", text))?
        }
        None => ["label", "cls", "class_id"].iter().find_map(|name| described[name].as_i64()).unwrap_or(-1),
    };
    let row: Option<SampleInfo> = serde_json::from_value(described).ok();
    let key = row.as_ref().map_or(key, |row| &row.key).to_owned();
    visit(Sample { key, shard: shard.to_owned(), tokens, label, rows: row.into_iter().collect() })
}

/// The integers of nested lists, in order.
fn flatten(value: &serde_json::Value, out: &mut Vec<i64>) -> bool {
    match value.as_array() {
        Some(list) => list.iter().all(|value| flatten(value, out)),
        None => value.as_i64().map(|number| out.push(number)).is_some(),
    }
}
