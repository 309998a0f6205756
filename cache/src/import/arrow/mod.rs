//! A cache out of what `save_to_disk` of Hugging Face's `datasets` writes: folders of Arrow streams.
//!
//! ```text
//! dataset_dict.json       {"splits": ["train", "test"]}: a folder per split; missing where there is one data set
//!   state.json            {"_data_files": [{"filename": "data-00000-of-00002.arrow"}, ...]}, in order
//!   dataset_info.json     {"features": {"label": {"names": [...], "_type": "ClassLabel"}, ...}}
//!   data-*.arrow          record batches
//! ```
//!
//! The few types that matter are read here, every offset checked. `arrow-ipc` was tried: with its crates the Python
//! package has 15.8 MB, of 15 that it may have; they compile for a minute, and panic on damaged files.

mod batch;
mod flatbuffer;
mod folder;
mod schema;
mod stream;

use crate::error::CacheError;
use crate::files::token_lists::Columns;
use crate::format::schema::{CROP_X, CROP_Y, FLIP, KEY, VIEW};
use crate::format::split::Split;
use crate::import::arrow::batch::Batch;
use crate::import::arrow::folder::{DataSet, parts_of};
use crate::import::arrow::stream::Stream;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, job_of, square_of, width_of};
use crate::import::list_reader::{LABEL_COLUMNS, TOKENS_COLUMNS};
use crate::import::seen_keys::{SeenKeys, TwoPlaces, repeated_row};
use crate::import::waiting_rows::OwnedRows;
use crate::write::writer::{Finished, OpenMode};
pub use folder::is_data_set;
use std::path::Path;

/// Imports a data set or a dictionary of them, whose names become splits; or a single file. Columns are found as those of
/// [`crate::import_parquet`], also lists of lists, which are read as one; the names of a `ClassLabel` become those of the classes. A
/// grid of 0 x 0 stands for a square one of as many tokens as a view has.
///
/// # Errors
/// [`CacheError::Import`] naming the file and the place; otherwise as [`crate::import_npy`].
pub fn import_arrow(path: &Path, options: &ImportOptions, out: &Path, mode: OpenMode) -> Result<Finished, CacheError> {
    let parts = parts_of(path)?;
    let views = options.views.max(1) as usize;
    let mut counted = Counted::default();
    let mut ends = Vec::new();
    for part in &parts {
        part.files.iter().try_for_each(|file| counted.add(file, options, views))?;
        if let Some(hash) = std::mem::take(&mut counted.keys).repeated() {
            refuse_repeated(part, hash, options, views)?;
        }
        let images = counted.rows / views;
        if !counted.rows.is_multiple_of(views) || images == ends.last().copied().unwrap_or(0) {
            let expected = format!("at least 1, and a multiple of --views {views}");
            return Err(import_error(&part.dir, "number of rows", expected, counted.rows));
        }
        ends.push(images);
    }
    let mut options = options.clone();
    if options.grid == (0, 0) {
        options.grid = square_of(path, counted.num_tokens)?;
    }
    let bits = options.bits.unwrap_or_else(|| width_of(counted.largest));
    let first = &parts[0];
    if options.classes.is_empty() {
        options.classes = first.class_names(LABEL_COLUMNS, options.label_column.as_deref())?;
    }
    let mut job = job_of(path, counted.rows / views, bits, &options)?;
    job.splits = splits(&parts, &ends);
    let mut importer = Importer::of(path, job, &options.key_prefix, out, mode)?;
    let (mut waiting, mut image) = (OwnedRows::default(), 0);
    for file in parts.iter().flat_map(|part| &part.files) {
        let mut reader = Reader::open(file, &options)?;
        while let Some(columns) = reader.next()? {
            waiting.append(file, columns, importer.num_tokens, views)?;
            while waiting.len() >= views {
                importer.push_rows(image, &waiting, views)?;
                waiting.drop_front(views);
                image += 1;
            }
            waiting.compact();
        }
    }
    importer.writer.finish()
}

fn splits(parts: &[DataSet], ends: &[usize]) -> Vec<Split> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let split = |((part, start), end): ((&DataSet, usize), &usize)| {
        part.split.clone().map(|name| Split { name, images: [start, *end] })
    };
    parts.iter().zip(starts).zip(ends).filter_map(split).collect()
}

/// The error for a key that two images of a split have, by its hash.
fn refuse_repeated(part: &DataSet, hash: u64, options: &ImportOptions, views: usize) -> Result<(), CacheError> {
    let (mut places, mut rows) = (TwoPlaces::of(hash), 0);
    for file in &part.files {
        let (mut reader, first) = (Reader::open(file, options)?, rows);
        while let Some(batch) = reader.stream.next()? {
            for (row, key) in (rows..).zip(reader.keys(&batch)?).filter(|(row, _)| row % views == 0) {
                let place = || format!("row {} of {}", row - first, file.display());
                if let Some(known) = places.take(&key, place) {
                    return Err(repeated_row(file, known, &key, row - first));
                }
            }
            rows += batch.num_rows;
        }
    }
    Ok(())
}

/// What a first pass learns, since a job knows its images from the beginning.
#[derive(Default)]
struct Counted {
    rows: usize,
    /// Tokens of the first row.
    num_tokens: usize,
    largest: i64,
    /// Of the images of a split, in files that have them.
    keys: SeenKeys,
}

impl Counted {
    fn add(&mut self, file: &Path, options: &ImportOptions, views: usize) -> Result<(), CacheError> {
        let mut reader = Reader::open(file, options)?;
        let has_all = options.bits.is_some() && options.grid != (0, 0);
        while let Some(batch) = reader.stream.next()? {
            if !has_all {
                let (tokens, lengths) = reader.integers(&batch, reader.tokens, None)?;
                if self.rows == 0 {
                    self.num_tokens = lengths.first().copied().unwrap_or(0);
                }
                self.largest = tokens.into_iter().fold(self.largest, i64::max);
            }
            let keys = (self.rows..).zip(reader.keys(&batch)?);
            keys.filter(|(row, _)| row % views == 0).for_each(|(_, key)| self.keys.add(&key));
            self.rows += batch.num_rows;
        }
        Ok(())
    }
}

/// The columns of a file that matter.
struct Reader {
    stream: Stream,
    tokens: usize,
    label: Option<usize>,
}

impl Reader {
    fn open(path: &Path, options: &ImportOptions) -> Result<Reader, CacheError> {
        let stream = Stream::open(path)?;
        let names: Vec<&str> = stream.fields.iter().map(|field| field.name.as_str()).collect();
        let find = |what, given: Option<&str>, usual: &[&str]| match given {
            Some(name) => match names.iter().position(|found| *found == name) {
                Some(index) => Ok(Some(index)),
                None => Err(import_error(path, what, format!("one of {}", names.join(", ")), name)),
            },
            None => Ok(usual.iter().find_map(|name| names.iter().position(|found| found == name))),
        };
        let missing = || {
            let expected = format!("one of {}, or one that is named (--tokens-column)", TOKENS_COLUMNS.join(", "));
            import_error(path, "column of tokens", expected, format!("not among {}", names.join(", ")))
        };
        let tokens =
            find("column of tokens", options.tokens_column.as_deref(), &TOKENS_COLUMNS)?.ok_or_else(missing)?;
        let label = find("column of labels", options.label_column.as_deref(), &LABEL_COLUMNS)?;
        Ok(Reader { stream, tokens, label })
    }

    /// The rows of the next batch.
    fn next(&mut self) -> Result<Option<Columns>, CacheError> {
        let Some(batch) = self.stream.next()? else { return Ok(None) };
        let column = |name: &str| self.stream.fields.iter().position(|field| field.name == name);
        let (tokens, lengths) = self.integers(&batch, self.tokens, None)?;
        let mut columns = Columns { tokens, lengths, ..Columns::default() };
        for (index, values, null) in [
            (self.label, &mut columns.labels, Some(-1)),
            (column(VIEW), &mut columns.views, None),
            (column(CROP_X), &mut columns.crop_x, None),
            (column(CROP_Y), &mut columns.crop_y, None),
        ] {
            if let Some(index) = index {
                *values = self.one_each(&batch, index, null)?;
            }
        }
        if let Some(index) = column(FLIP) {
            columns.flips = self.one_each(&batch, index, None)?.into_iter().map(|flip| flip != 0).collect();
        }
        if let Some(index) = column(KEY) {
            let texts = batch.texts(&self.stream.fields, index);
            columns.keys = texts.map_err(|what| self.stream.damaged(&what))?;
        }
        Ok(Some(columns))
    }

    /// The keys of a batch; none where the file has no such column.
    fn keys(&self, batch: &Batch) -> Result<Vec<String>, CacheError> {
        let Some(index) = self.stream.fields.iter().position(|field| field.name == KEY) else { return Ok(Vec::new()) };
        let keys = batch.texts(&self.stream.fields, index).map_err(|what| self.stream.damaged(&what))?;
        Ok(keys.iter().map(|key| String::from_utf8_lossy(key.data()).into_owned()).collect())
    }

    fn integers(&self, batch: &Batch, index: usize, null: Option<i64>) -> Result<(Vec<i64>, Vec<usize>), CacheError> {
        batch.integers(&self.stream.fields, index, null).map_err(|what| self.stream.damaged(&what))
    }

    fn one_each(&self, batch: &Batch, index: usize, null: Option<i64>) -> Result<Vec<i64>, CacheError> {
        let (values, lengths) = self.integers(batch, index, null)?;
        if lengths.iter().any(|length| *length != 1) {
            let name = &self.stream.fields[index].name;
            return Err(self.stream.damaged(&format!("column {name}: it holds lists, not one number per row")));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
