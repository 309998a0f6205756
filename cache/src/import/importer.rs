//! The writer of an import, which checks what comes from elsewhere.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::identity::TokenizerInfo;
use crate::format::job::JobSpec;
use crate::format::row::Row;
use crate::import::error::import_error;
use crate::import::waiting_rows::{MISSING, OwnedRows};
use crate::write::copy::CopyWriter;
use crate::write::folder::identity_there;
use crate::write::writer::OpenMode;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What arrays do not say about themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// Height and width of a grid, in tokens.
    pub grid: (u32, u32),
    /// Bits of a token; `None`: as many as the largest token needs, for which all of them are read once more.
    pub bits: Option<u32>,
    /// Rows of an image, next to each other. 0: what the shape of the tokens says, else 1. For pairs of files it is found in the
    /// first one.
    pub views: u32,
    /// Who made the tokens, as far as it is known.
    pub tokenizer: TokenizerInfo,
    /// Class names by index.
    pub classes: Vec<String>,
    /// The column of tokens of Parquet files; `None`: the first of the usual names that is there.
    pub tokens_column: Option<String>,
    /// The column of labels, likewise.
    pub label_column: Option<String>,
    /// A name in front of every key, `<prefix>/<key>`; empty for none. Keys that are numbers would else be those of any
    /// other set.
    pub key_prefix: String,
}

/// The kind of source that arrays are.
const IMPORT: &str = "import";

/// The part of an image that a view shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crop {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) flip: bool,
}

/// The writer of an import, with what its rows are checked against.
pub(super) struct Importer {
    pub(super) writer: CopyWriter,
    path: PathBuf,
    grid: GridSpec,
    first_view: u32,
    pub(super) num_tokens: usize,
    tokens: Vec<u32>,
    key_prefix: String,
}

impl Importer {
    pub(super) fn open(
        path: &Path,
        images: usize,
        bits: u32,
        options: &ImportOptions,
        out: &Path,
        mode: OpenMode,
    ) -> Result<Importer, CacheError> {
        Self::of(path, job_of(path, images, bits, options)?, &options.key_prefix, out, mode)
    }

    /// The job as it was begun: arrays are identified by their contents, which are compared, and not by their location.
    fn as_begun(mut job: JobSpec, out: &Path) -> JobSpec {
        if let Some(found) = identity_there(out).filter(|found| found.source.kind == IMPORT) {
            job.source.location = found.source.location;
        }
        job
    }

    pub(super) fn of(
        path: &Path,
        job: JobSpec,
        key_prefix: &str,
        out: &Path,
        mode: OpenMode,
    ) -> Result<Importer, CacheError> {
        let job = if job.source.kind == IMPORT && mode == OpenMode::Resume { Self::as_begun(job, out) } else { job };
        let (grid, first_view) = (job.grid, job.first_view);
        let writer = CopyWriter::open(out, job, mode)?;
        Ok(Importer {
            writer,
            path: path.into(),
            grid,
            first_view,
            num_tokens: grid.num_tokens(),
            tokens: Vec::new(),
            key_prefix: key_prefix.to_owned(),
        })
    }

    /// The key as the cache has it.
    fn prefixed<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match self.key_prefix.as_str() {
            "" => Cow::Borrowed(key),
            prefix => Cow::Owned(format!("{prefix}/{key}")),
        }
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

    pub(super) fn push(&mut self, image: usize, tokens: &[i64], label: i64, key: &str) -> Result<(), CacheError> {
        self.push_views(image, tokens, label, key, &|_| Crop::default())
    }

    /// As [`Importer::push`], with the crop of each view, counted from 0.
    pub(super) fn push_views(
        &mut self,
        image: usize,
        tokens: &[i64],
        label: i64,
        key: &str,
        crop_of: &dyn Fn(usize) -> Crop,
    ) -> Result<(), CacheError> {
        self.narrow(image, tokens)?;
        let label = label_of(&self.path, label)?;
        let key = &self.prefixed(key);
        let views = self.tokens.chunks_exact(self.num_tokens).enumerate();
        let row = |(number, tokens)| {
            let Crop { x: crop_x, y: crop_y, flip } = crop_of(number);
            Row { tokens, label, key, view: self.first_view + number as u32, crop_x, crop_y, flip }
        };
        let rows: Vec<_> = views.map(row).collect();
        self.writer.push_image(image, &rows)
    }

    pub(super) fn push_rows(&mut self, image: usize, rows: &OwnedRows, views: usize) -> Result<(), CacheError> {
        let (columns, num_tokens) = (&rows.columns, self.num_tokens);
        self.narrow(image, &columns.tokens[rows.start * num_tokens..(rows.start + views) * num_tokens])?;
        let no_text = |_| import_error(&self.path, "key", "UTF-8 text".into(), "other bytes");
        let number = |what, value: i64| {
            i32::try_from(value).map_err(|_| import_error(&self.path, what, "32 bits".into(), value))
        };
        let mut keys = Vec::with_capacity(views);
        for key in &columns.keys[rows.start..rows.start + views] {
            keys.push(self.prefixed(std::str::from_utf8(key.data()).map_err(no_text)?));
        }
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
                key: &keys[view],
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

pub(super) fn job_of(path: &Path, images: usize, bits: u32, options: &ImportOptions) -> Result<JobSpec, CacheError> {
    let grid = GridSpec { height: options.grid.0, width: options.grid.1, bits };
    grid.validate()?;
    let mut job = JobSpec::new(grid, images, options.views.max(1));
    job.tokenizer = options.tokenizer.clone();
    job.classes = options.classes.clone();
    job.source.kind = IMPORT.to_owned();
    job.source.location = path.display().to_string();
    Ok(job)
}

/// The square grid of so many tokens.
pub(super) fn square_of(path: &Path, num_tokens: usize) -> Result<(u32, u32), CacheError> {
    let side = num_tokens.isqrt();
    if side * side != num_tokens || num_tokens == 0 {
        return Err(import_error(path, "number of tokens", "a square: else give --grid HxW".into(), num_tokens));
    }
    let side = u32::try_from(side).unwrap_or(u32::MAX);
    Ok((side, side))
}

pub(super) fn width_of(largest: i64) -> u32 {
    (64 - largest.max(0).leading_zeros()).max(1)
}
