//! A cache out of arrays of `numpy`.

use crate::cancel;
use crate::error::CacheError;
use crate::files::npy::NpyReader;
use crate::format::pack::TOKEN_BITS_MAX;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, width_of};
use crate::import::keys::Keys;
use crate::write::writer::{Finished, OpenMode};
use std::path::{Path, PathBuf};

/// Imports `tokens` (`.npy` of integers, `[rows, H * W]`, `[images, views, H * W]` or `[rows, H, W]`) with `labels`
/// (`[rows]` or `[images]`) and `keys` (a text file, one line per row or image); without, labels are -1 and keys numbers.
///
/// # Errors
/// [`CacheError::NotNpy`]; [`CacheError::NoRows`]; [`CacheError::Import`] naming the shape or value that does not fit; [`CacheError::InputsDiffer`] when
/// `out` was begun with other rows; as [`CacheWriter::open`](crate::CacheWriter::open) and
/// [`CacheWriter::push_image`](crate::CacheWriter::push_image).
pub fn import_npy(
    tokens: &Path,
    labels: Option<&Path>,
    keys: Option<&Path>,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let mut input = NpyReader::open(tokens)?;
    let options = &with_views(&input.shape, options);
    let views = options.views.max(1) as usize;
    let (rows, num_tokens) = (rows_of(tokens, &input.shape, options)?, num_tokens(options));
    if rows == 0 {
        return Err(CacheError::NoRows { path: tokens.into(), what: format!("its shape is {:?}", input.shape) });
    }
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

/// The numbers i of the files `<i>.npy` of a folder, in ascending order.
fn numbered(folder: &Path) -> Result<Vec<u64>, CacheError> {
    let names = crate::files::small::list_names(folder)?;
    let number = |name: &String| name.strip_suffix(".npy")?.parse().ok().filter(|n: &u64| format!("{n}.npy") == *name);
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Imports folders of one `.npy` per sample, as LlamaGen's extraction writes them: `codes/<i>.npy` of `[1, views, H * W]`
/// and `labels/<i>.npy` of one value. Samples come in the order of their numbers; `<i>` is the key.
///
/// # Errors
/// As [`import_npy`]; [`CacheError::Io`] for a code file without a label file, [`CacheError::Import`] for a label file without a code file.
pub fn import_npy_pairs(
    codes: &Path,
    labels: &Path,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let numbers = numbered(codes)?;
    if let Some(more) = numbered(labels)?.into_iter().find(|number| numbers.binary_search(number).is_err()) {
        let file = labels.join(format!("{more}.npy"));
        return Err(import_error(
            &file,
            "file with its tokens",
            format!("{more}.npy in {}", codes.display()),
            "missing",
        ));
    }
    let file = |number: u64| codes.join(format!("{number}.npy"));
    let empty =
        || CacheError::NoRows { path: codes.into(), what: "its files are not named by numbers, as 0.npy".into() };
    let first = numbers.first().ok_or_else(empty)?;
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

fn num_tokens(options: &ImportOptions) -> usize {
    options.grid.0 as usize * options.grid.1 as usize
}

/// The options, with the views of `[images, views, H * W]` where nobody gave a number.
fn with_views(shape: &[usize], options: &ImportOptions) -> ImportOptions {
    let is_grid = |height: usize, width: usize| (height, width) == (options.grid.0 as usize, options.grid.1 as usize);
    let views = match *shape {
        [_, views, tokens] if options.views == 0 && tokens == num_tokens(options) && !is_grid(views, tokens) => views,
        _ => options.views as usize,
    };
    ImportOptions { views: u32::try_from(views).unwrap_or(u32::MAX), ..options.clone() }
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

/// Labels of rows or of images.
pub(super) struct PerRow {
    path: PathBuf,
    reader: NpyReader,
    each_row: bool,
}

impl PerRow {
    pub(super) fn labels(path: &Path, images: usize, views: usize) -> Result<PerRow, CacheError> {
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

    pub(super) fn next(&mut self, views: usize) -> Result<i64, CacheError> {
        let mut labels = vec![0; if self.each_row { views } else { 1 }];
        self.reader.read(&mut labels)?;
        match labels.iter().find(|label| **label != labels[0]) {
            None => Ok(labels[0]),
            Some(label) => Err(import_error(&self.path, "label of a later view", labels[0].to_string(), *label)),
        }
    }
}
