//! A cache out of arrays or of Parquet with lists.

use std::path::{Path, PathBuf};

use super::keys::Keys;
use super::list_parquet::{Columns, ListReader};
use super::npy::NpyReader;
use crate::cancel;
use crate::error::CacheError;
use crate::grid::{GridSpec, TOKEN_BITS_MAX};
use crate::group::Row;
use crate::job::{JobSpec, TokenizerInfo};
use crate::writer::{CopyWriter, Finished, OpenMode, identity_there};

/// What arrays do not say about themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// Height and width of a grid, in tokens.
    pub grid: (u32, u32),
    /// Bits of a token; `None`: as many as the largest token needs, for which all of them are read once more.
    pub bits: Option<u32>,
    /// Rows of an image, next to each other (0 counts as 1). For pairs of files it is found in the first one.
    pub views: u32,
    /// Who made the tokens, as far as it is known.
    pub tokenizer: TokenizerInfo,
    /// Class names by index.
    pub classes: Vec<String>,
}

/// Imports `tokens` (`.npy` of integers, `[rows, H * W]`, `[images, views, H * W]` or `[rows, H, W]`) with `labels`
/// (`[rows]` or `[images]`) and `keys` (a text file, one line per row or image); without, labels are -1 and keys numbers.
///
/// # Errors
/// [`CacheError::NotNpy`]; [`CacheError::Import`] naming the shape or value that does not fit; [`CacheError::InputsDiffer`] when
/// `out` was begun with other rows; as [`CacheWriter`](crate::CacheWriter).
pub fn import_npy(
    tokens: &Path,
    labels: Option<&Path>,
    keys: Option<&Path>,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let mut input = NpyReader::open(tokens)?;
    let views = options.views.max(1) as usize;
    let (rows, num_tokens) = (rows_of(tokens, &input.shape, options)?, num_tokens(options));
    if !rows.is_multiple_of(views) {
        return Err(import_error(tokens, "number of rows", format!("a multiple of --views {views}"), rows));
    }
    let images = rows / views;
    let mut labels = labels.map(|path| PerRow::labels(path, images, views)).transpose()?;
    let mut keys = keys.map(|path| Keys::open(path, images, views)).transpose()?;
    let bits = match options.bits {
        Some(bits) => bits,
        None => needed_bits(tokens, NpyReader::open(tokens)?, rows * num_tokens)?,
    };
    let mut importer = Importer::open(tokens, images, bits, options, out, mode)?;
    let mut wide = vec![0; num_tokens * views];
    for image in 0..images {
        input.read(&mut wide)?;
        let label = labels.as_mut().map_or(Ok(-1), |labels| labels.next(views))?;
        let key = keys.as_mut().map_or(Ok(format!("{image:08}")), Keys::next)?;
        importer.push(image, &wide, label, &key)?;
        cancel::check()?;
    }
    importer.writer.finish()
}

/// Imports folders of one `.npy` a sample, as LlamaGen's extraction writes them: `codes/<i>.npy` of `[1, views, H * W]`
/// and `labels/<i>.npy` of one value. Samples come in the order of their numbers; `<i>` is the key.
///
/// # Errors
/// As [`import_npy`]; [`CacheError::Io`] for a code file without a label file.
pub fn import_npy_pairs(
    codes: &Path,
    labels: &Path,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let mut numbers: Vec<u64> = crate::fsio::list_names(codes)?
        .iter()
        .filter_map(|name| name.strip_suffix(".npy")?.parse().ok().filter(|n: &u64| format!("{n}.npy") == *name))
        .collect();
    numbers.sort_unstable();
    let file = |number: u64| codes.join(format!("{number}.npy"));
    let first = numbers.first().ok_or_else(|| import_error(codes, "number of <i>.npy files", "some".into(), 0))?;
    let num_tokens = num_tokens(options);
    let values_of = |path: &Path| -> Result<Vec<i64>, CacheError> {
        let mut reader = NpyReader::open(path)?;
        let mut values = vec![0; reader.shape.iter().product()];
        reader.read(&mut values)?;
        Ok(values)
    };
    let size = values_of(&file(*first))?.len();
    if size == 0 || !size.is_multiple_of(num_tokens) {
        return Err(import_error(&file(*first), "size", format!("a multiple of {num_tokens} tokens"), size));
    }
    let mut largest = 0;
    if options.bits.is_none() {
        for number in &numbers {
            cancel::check()?;
            largest = values_of(&file(*number))?.into_iter().fold(largest, i64::max);
        }
    }
    let bits = options.bits.unwrap_or_else(|| width_of(largest));
    let options = ImportOptions { views: (size / num_tokens) as u32, ..options.clone() };
    let mut importer = Importer::open(codes, numbers.len(), bits, &options, out, mode)?;
    for (image, number) in numbers.iter().enumerate() {
        cancel::check()?;
        let values = values_of(&file(*number))?;
        if values.len() != size {
            return Err(import_error(&file(*number), "size", format!("{size} as the first one"), values.len()));
        }
        let label_file = labels.join(format!("{number}.npy"));
        let label = values_of(&label_file)?;
        if label.len() != 1 {
            return Err(import_error(&label_file, "size", "one label".into(), label.len()));
        }
        importer.push(image, &values, label[0], &number.to_string())?;
    }
    importer.writer.finish()
}

/// Imports Parquet files with `tokens` as lists of integers; `label`, `key`, `view`, `crop_x`, `crop_y` and `flip` where
/// they are there. A file that [`super::export_parquet`] wrote gives the cache that it was written from, and `options`
/// are not used.
///
/// # Errors
/// [`CacheError::ImportParquet`]; otherwise as [`import_npy`].
pub fn import_parquet(
    files: &[PathBuf],
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let readers: Result<Vec<_>, _> = files.iter().map(|path| Ok((path, ListReader::open(path)?))).collect();
    let readers = readers?;
    let rows = readers.iter().map(|(_, reader)| reader.num_rows()).sum::<usize>();
    let nothing = || CacheError::Import {
        path: PathBuf::new(),
        what: "number of files",
        expected: "at least 1".into(),
        actual: "0".into(),
    };
    let (path, first) = readers.first().ok_or_else(nothing)?;
    let job = match &first.identity {
        Some(identity) => JobSpec::from_identity(identity.clone())?,
        None => {
            let bits = match options.bits {
                Some(bits) => bits,
                None => width_of(largest_token(&readers)?),
            };
            job_of(path, rows / options.views.max(1) as usize, bits, options)?
        }
    };
    let views = job.num_views as usize;
    if !rows.is_multiple_of(views) {
        return Err(import_error(path, "number of rows", format!("a multiple of {views} views"), rows));
    }
    if rows / views != job.source.images {
        return Err(import_error(path, "number of images", job.source.images.to_string(), rows / views));
    }
    let mut importer = Importer::of(path, job, out, mode)?;
    let mut rows = OwnedRows::default();
    let mut image = 0;
    for (path, reader) in &readers {
        for group in 0..reader.num_groups() {
            rows.append(path, reader.read_group(group)?, importer.num_tokens, views)?;
            cancel::check()?;
            while rows.len() >= views {
                importer.push_rows(image, &rows, views)?;
                rows.drop_front(views);
                image += 1;
            }
            rows.compact();
        }
    }
    importer.writer.finish()
}

fn largest_token(readers: &[(&PathBuf, ListReader)]) -> Result<i64, CacheError> {
    let mut largest = 0;
    for (_, reader) in readers {
        for group in 0..reader.num_groups() {
            cancel::check()?;
            largest = reader.read_group(group)?.tokens.into_iter().fold(largest, i64::max);
        }
    }
    Ok(largest)
}

/// Rows that wait for the rest of their image.
#[derive(Default)]
struct OwnedRows {
    columns: Columns,
    start: usize,
    total: usize,
}

impl OwnedRows {
    fn len(&self) -> usize {
        self.columns.lengths.len() - self.start
    }

    fn drop_front(&mut self, rows: usize) {
        self.start += rows;
        self.total += rows;
    }

    /// Forgets the rows that were dropped.
    fn compact(&mut self) {
        let start = self.start;
        let tokens: usize = self.columns.lengths[..start].iter().sum();
        let columns = &mut self.columns;
        columns.tokens.drain(..tokens);
        columns.lengths.drain(..start);
        columns.keys.drain(..start);
        columns.flips.drain(..start);
        for values in [&mut columns.labels, &mut columns.views, &mut columns.crop_x, &mut columns.crop_y] {
            values.drain(..start);
        }
        self.start = 0;
    }

    /// Rows without keys get the number of their image.
    fn append(&mut self, path: &Path, mut more: Columns, num_tokens: usize, views: usize) -> Result<(), CacheError> {
        let rows = more.lengths.len();
        if let Some(length) = more.lengths.iter().find(|length| **length != num_tokens) {
            return Err(import_error(path, "length of a list", num_tokens.to_string(), *length));
        }
        let first = self.total + self.len();
        let columns = &mut self.columns;
        let keys = std::mem::take(&mut more.keys);
        let numbered = (0..rows).map(|row| format!("{:08}", (first + row) / views).as_str().into());
        columns.keys.extend(if keys.len() == rows { keys } else { numbered.collect() });
        columns.tokens.append(&mut more.tokens);
        columns.lengths.append(&mut more.lengths);
        more.flips.resize(rows, false);
        columns.flips.append(&mut more.flips);
        for (values, more, default) in [
            (&mut columns.labels, &mut more.labels, -1),
            (&mut columns.views, &mut more.views, MISSING),
            (&mut columns.crop_x, &mut more.crop_x, 0),
            (&mut columns.crop_y, &mut more.crop_y, 0),
        ] {
            more.resize(rows, default);
            values.append(more);
        }
        Ok(())
    }
}

/// The kind of source that arrays are.
const IMPORT: &str = "import";

/// A view that the file does not have: counted instead.
const MISSING: i64 = i64::MIN;

/// The writer of an import, with what its rows are checked against.
struct Importer {
    writer: CopyWriter,
    path: PathBuf,
    grid: GridSpec,
    first_view: u32,
    num_tokens: usize,
    tokens: Vec<u32>,
}

impl Importer {
    fn open(
        path: &Path,
        images: usize,
        bits: u32,
        options: &ImportOptions,
        out: &Path,
        mode: OpenMode,
    ) -> Result<Importer, CacheError> {
        Self::of(path, job_of(path, images, bits, options)?, out, mode)
    }

    /// The job as it was begun: arrays are compared by their contents, not by their paths.
    fn as_begun(mut job: JobSpec, out: &Path) -> JobSpec {
        if let Some(found) = identity_there(out).filter(|found| found.source.kind == IMPORT) {
            job.source.location = found.source.location;
        }
        job
    }

    fn of(path: &Path, job: JobSpec, out: &Path, mode: OpenMode) -> Result<Importer, CacheError> {
        let job = if job.source.kind == IMPORT && mode == OpenMode::Resume { Self::as_begun(job, out) } else { job };
        let (grid, first_view) = (job.grid, job.first_view);
        let writer = CopyWriter::open(out, job, mode)?;
        Ok(Importer { writer, path: path.into(), grid, first_view, num_tokens: grid.num_tokens(), tokens: Vec::new() })
    }

    fn narrow(&mut self, image: usize, tokens: &[i64]) -> Result<(), CacheError> {
        self.tokens.clear();
        let bits = self.grid.bits;
        if let Some(token) = tokens.iter().find(|token| !(0..1i64 << bits).contains(*token)) {
            let expected = format!("0 to 2^{bits} - 1 (image {image})");
            return Err(import_error(&self.path, "token", expected, *token));
        }
        self.tokens.extend(tokens.iter().map(|token| *token as u32));
        Ok(())
    }

    fn push(&mut self, image: usize, tokens: &[i64], label: i64, key: &str) -> Result<(), CacheError> {
        self.narrow(image, tokens)?;
        let label = label_of(&self.path, label)?;
        let views = self.tokens.chunks_exact(self.num_tokens).zip(self.first_view..);
        let rows: Vec<_> =
            views.map(|(tokens, view)| Row { tokens, label, key, view, crop_x: 0, crop_y: 0, flip: false }).collect();
        self.writer.push_image(image, &rows)
    }

    fn push_rows(&mut self, image: usize, rows: &OwnedRows, views: usize) -> Result<(), CacheError> {
        let (columns, num_tokens) = (&rows.columns, self.num_tokens);
        self.narrow(image, &columns.tokens[rows.start * num_tokens..(rows.start + views) * num_tokens])?;
        let no_text = |_| import_error(&self.path, "key", "UTF-8 text".into(), "other bytes");
        let number = |what, value: i64| {
            i32::try_from(value).map_err(|_| import_error(&self.path, what, "32 bits".into(), value))
        };
        let mut pushed = Vec::with_capacity(views);
        for (view, tokens) in self.tokens.chunks_exact(num_tokens).enumerate() {
            let row = rows.start + view;
            let counted = i64::from(self.first_view) + view as i64;
            let found = if columns.views[row] == MISSING { counted } else { columns.views[row] };
            if found != counted {
                let expected = format!("{counted} (image {image}): the views of an image follow each other");
                return Err(import_error(&self.path, "view", expected, found));
            }
            pushed.push(Row {
                tokens,
                label: label_of(&self.path, columns.labels[row])?,
                key: std::str::from_utf8(columns.keys[row].data()).map_err(no_text)?,
                view: found as u32,
                crop_x: number("crop_x", columns.crop_x[row])?,
                crop_y: number("crop_y", columns.crop_y[row])?,
                flip: columns.flips[row],
            });
        }
        self.writer.push_image(image, &pushed)
    }
}

fn label_of(path: &Path, label: i64) -> Result<i32, CacheError> {
    i32::try_from(label).map_err(|_| import_error(path, "label", "-1 or a class index".into(), label))
}

fn job_of(path: &Path, images: usize, bits: u32, options: &ImportOptions) -> Result<JobSpec, CacheError> {
    let grid = GridSpec { height: options.grid.0, width: options.grid.1, bits };
    grid.validate()?;
    let mut job = JobSpec::new(grid, images, options.views.max(1));
    job.tokenizer = options.tokenizer.clone();
    job.classes = options.classes.clone();
    job.source.kind = IMPORT.to_owned();
    job.source.location = path.display().to_string();
    Ok(job)
}

fn num_tokens(options: &ImportOptions) -> usize {
    options.grid.0 as usize * options.grid.1 as usize
}

/// Grids in an array of this shape.
fn rows_of(path: &Path, shape: &[usize], options: &ImportOptions) -> Result<usize, CacheError> {
    let (height, width) = (options.grid.0 as usize, options.grid.1 as usize);
    let rows = match shape {
        [rows, tokens] if *tokens == height * width => Some(*rows),
        [rows, h, w] if (*h, *w) == (height, width) => Some(*rows),
        [images, views, tokens] if *tokens == height * width && *views == options.views.max(1) as usize => {
            Some(images * views)
        }
        _ => None,
    };
    let expected = || match shape {
        [_, views, tokens] if *tokens == height * width => {
            format!("{} views of each image (--views {views} takes all of the array's)", options.views.max(1))
        }
        _ => format!("[rows, {0}], or [images, views, {0}] with --views", height * width),
    };
    rows.filter(|_| height * width > 0).ok_or_else(|| import_error(path, "shape", expected(), format!("{shape:?}")))
}

fn needed_bits(path: &Path, mut input: NpyReader, values: usize) -> Result<u32, CacheError> {
    let mut block = vec![0; values.min(1 << 18)];
    let (mut largest, mut left) = (0, values);
    while left > 0 {
        let block = &mut block[..left.min(1 << 18)];
        cancel::check()?;
        input.read(block)?;
        largest = block.iter().copied().fold(largest, i64::max);
        left -= block.len();
    }
    let bits = width_of(largest);
    if bits > TOKEN_BITS_MAX {
        return Err(import_error(path, "token", format!("less than 2^{TOKEN_BITS_MAX}"), largest));
    }
    Ok(bits)
}

fn width_of(largest: i64) -> u32 {
    (64 - largest.max(0).leading_zeros()).max(1)
}

/// Labels of rows or of images.
struct PerRow {
    path: PathBuf,
    reader: NpyReader,
    each_row: bool,
}

impl PerRow {
    fn labels(path: &Path, images: usize, views: usize) -> Result<PerRow, CacheError> {
        let reader = NpyReader::open(path)?;
        let values: usize = reader.shape.iter().product();
        if values != images && values != images * views {
            let expected = match views {
                1 => format!("{images}, one for each row; for a label for several rows give --views"),
                _ => format!("{images} images or {} rows", images * views),
            };
            return Err(import_error(path, "number of labels", expected, values));
        }
        Ok(PerRow { path: path.into(), each_row: values != images, reader })
    }

    fn next(&mut self, views: usize) -> Result<i64, CacheError> {
        let mut labels = vec![0; if self.each_row { views } else { 1 }];
        self.reader.read(&mut labels)?;
        match labels.iter().find(|label| **label != labels[0]) {
            None => Ok(labels[0]),
            Some(label) => Err(import_error(&self.path, "label of a later view", labels[0].to_string(), *label)),
        }
    }
}

pub(super) fn import_error(
    path: &Path,
    what: &'static str,
    expected: String,
    actual: impl std::fmt::Display,
) -> CacheError {
    CacheError::Import { path: path.into(), what, expected, actual: actual.to_string() }
}
