//! A cache out of a folder with an `.npz` per image, below a folder per class: the layout in which MAR caches latents.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::files::npy::NpyReader;
use crate::import::error::import_error;
use crate::import::frame_set::collect_files;
use crate::import::importer::{Crop, ImportOptions, Importer, width_of};
use crate::import::list_reader::TOKENS_COLUMNS;
use crate::import::sample_layout::SampleLayout;
use crate::npy::Header;
use crate::write::writer::{Finished, OpenMode};
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// The ending of an image's file.
pub(crate) const ENDING: &str = ".npz";

/// What the name of the mirrored image's array ends in, as MAR has it.
pub(crate) const FLIPPED: &str = "_flip";

/// The largest array that is read: 8 million tokens of 64 bits.
const ARRAY_BYTES_MAX: u64 = 64 << 20;

/// Imports the `.npz` files below `dir`, one per image: an array of integers of one or several views, by a usual name or the one
/// that `options.tokens_column` gives, and `<name>_flip` with the views of the mirrored image. The folders in `dir` are the classes, as
/// torchvision's `DatasetFolder` numbers them; files in `dir` itself have none. The path without its ending is the key. A grid
/// of 0 x 0 stands for that of the first file's shape, as [`crate::import_webdataset`] reads it, and `[H, W]` where W is no square number.
///
/// # Errors
/// [`CacheError::Import`] naming the file, also for latents, which are no tokens; otherwise as [`crate::import_npy`].
pub fn import_npz(dir: &Path, options: &ImportOptions, out: &Path, mode: OpenMode) -> Result<Finished, CacheError> {
    let (classes, files) = listed(dir)?;
    let (_, first) = files.first().ok_or_else(|| import_error(dir, "number of .npz files", "at least 1".into(), 0))?;
    let wanted = options.tokens_column.as_deref();
    let path_of = |name: &str| dir.join(name);
    let first = Image::read(&path_of(first), wanted)?;
    let mut options = options.clone();
    if options.grid == (0, 0) {
        let layout = SampleLayout::of_image(&first.shape);
        options.grid = layout
            .map_err(|expected| {
                import_error(&first.path, "shape of the tokens", expected, format!("{:?}", first.shape))
            })?
            .grid;
    }
    let num_tokens = options.grid.0 as usize * options.grid.1 as usize;
    if num_tokens == 0 || first.tokens.is_empty() || !first.tokens.len().is_multiple_of(num_tokens) {
        let expected = format!("a multiple of {num_tokens} tokens");
        return Err(import_error(&first.path, "size", expected, first.tokens.len()));
    }
    if options.classes.is_empty() {
        options.classes = classes;
    }
    options.views = (first.tokens.len() / num_tokens) as u32;
    let bits = match options.bits {
        Some(bits) => bits,
        None => {
            let mut largest = 0;
            for (_, name) in &files {
                largest = Image::read(&path_of(name), wanted)?.tokens.into_iter().fold(largest, i64::max);
                cancel::check()?;
            }
            width_of(largest)
        }
    };
    let mut importer = Importer::open(dir, files.len(), bits, &options, out, mode)?;
    for (image, (label, name)) in files.iter().enumerate() {
        let Image { path, tokens, num_flipped, .. } = Image::read(&path_of(name), wanted)?;
        if (tokens.len(), num_flipped) != (first.tokens.len(), first.num_flipped) {
            let expected =
                format!("{}, {} of them mirrored, as in the first file", first.tokens.len(), first.num_flipped);
            let actual = format!("{}, {num_flipped} of them mirrored", tokens.len());
            return Err(import_error(&path, "number of tokens", expected, actual));
        }
        let first_flipped = (tokens.len() - num_flipped) / num_tokens;
        let key = name.strip_suffix(ENDING).unwrap_or(name);
        let crop_of = |view| Crop { flip: view >= first_flipped, ..Crop::default() };
        importer.push_views(image, &tokens, (*label).into(), key, &crop_of)?;
        cancel::check()?;
    }
    importer.writer.finish()
}

/// Whether there are such files in the folder or in the first folders in it.
pub fn holds_npz(dir: &Path) -> bool {
    let entries = |dir: &Path| dir.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).take(1000);
    let is_npz = |path: PathBuf| path.extension().is_some_and(|ending| ending == "npz");
    entries(dir).any(is_npz)
        || entries(dir).filter(|path| path.is_dir()).take(10).any(|path| entries(&path).any(is_npz))
}

/// The names of the classes, and of each image its class and its file, in the order of the classes.
type Listed = (Vec<String>, Vec<(i32, String)>);

fn listed(dir: &Path) -> Result<Listed, CacheError> {
    let mut names = Vec::new();
    collect_files(dir, "", &mut names)?;
    names.retain(|name| name.ends_with(ENDING));
    let class_of = |name: &String| name.split_once('/').map(|(class, _)| class.to_owned());
    names.sort_by_cached_key(|name| (class_of(name), name.clone()));
    let (mut classes, mut files) = (Vec::new(), Vec::with_capacity(names.len()));
    for name in names {
        let class = class_of(&name);
        if let Some(class) = class.filter(|class| classes.last() != Some(class)) {
            classes.push(class);
        }
        // Those without a class come first.
        files.push((classes.len() as i32 - 1, name));
    }
    Ok((classes, files))
}

/// An image's file.
struct Image {
    path: PathBuf,
    /// Of all views, those of the mirrored image last.
    tokens: Vec<i64>,
    /// Tokens of the mirrored image.
    num_flipped: usize,
    shape: Vec<usize>,
}

impl Image {
    fn read(path: &Path, wanted: Option<&str>) -> Result<Image, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let damaged = |error: &dyn std::fmt::Display| {
            import_error(path, "file", "an .npz, a zip of arrays: make it again or leave it out".into(), error)
        };
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
        let names: Vec<String> =
            archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect();
        let name = tokens_among(path, &names, wanted)?;
        let mut array = |name: &str| -> Result<(Vec<usize>, Vec<i64>), CacheError> {
            let member = archive.by_name(&format!("{name}.npy")).map_err(|error| damaged(&error))?;
            let mut content = Vec::new();
            member.take(ARRAY_BYTES_MAX + 1).read_to_end(&mut content).map_err(|error| damaged(&error))?;
            if content.len() as u64 > ARRAY_BYTES_MAX {
                return Err(damaged(&format!("array `{name}` has more than {ARRAY_BYTES_MAX} bytes")));
            }
            integers(path, name, content)
        };
        let (shape, mut tokens) = array(name)?;
        let flipped = format!("{name}{FLIPPED}");
        let mut num_flipped = 0;
        if names.contains(&flipped) {
            let (flipped_shape, flipped) = array(&flipped)?;
            if flipped_shape != shape {
                return Err(import_error(
                    path,
                    "shape of the mirrored array",
                    format!("{shape:?}"),
                    format!("{flipped_shape:?}"),
                ));
            }
            num_flipped = flipped.len();
            tokens.extend(flipped);
        }
        Ok(Image { path: path.into(), tokens, num_flipped, shape })
    }
}

/// The array of tokens: the one that is asked for, one by a usual name, or the only one.
fn tokens_among<'a>(path: &Path, names: &'a [String], wanted: Option<&str>) -> Result<&'a str, CacheError> {
    let find = |wanted: &str| names.iter().find(|name| *name == wanted).map(String::as_str);
    let refuse =
        |expected: String| import_error(path, "array of tokens", expected, format!("not among {}", names.join(", ")));
    if let Some(wanted) = wanted {
        return find(wanted).ok_or_else(|| refuse(format!("`{wanted}`")));
    }
    if let Some(name) = TOKENS_COLUMNS.iter().find_map(|name| find(name)) {
        return Ok(name);
    }
    let others: Vec<_> = names.iter().filter(|name| !name.ends_with(FLIPPED)).collect();
    match others.as_slice() {
        [only] => Ok(only),
        _ => Err(refuse(format!("one of {}, or one that is named (--tokens-column)", TOKENS_COLUMNS.join(", ")))),
    }
}

/// Shape and values of an array of integers.
fn integers(path: &Path, name: &str, content: Vec<u8>) -> Result<(Vec<usize>, Vec<i64>), CacheError> {
    let header = Header::read(&mut content.as_slice());
    if let Some(header) = header.ok().filter(|header| header.dtype().is_some_and(|dtype| dtype.kind == 'f')) {
        let expected = "integers, the codes of a quantizing tokenizer: continuous latents of a VAE, such as the moments that MAR \
                        caches, are no tokens, and no token cache can hold them";
        let actual = format!("`{name}` of type {}, {:?}", header.descr, header.shape);
        return Err(import_error(path, "array", expected.into(), actual));
    }
    let bytes = content.len() as u64;
    let mut reader = NpyReader::of(&path.join(name), Box::new(Cursor::new(content)), bytes)?;
    let mut values = vec![0; reader.shape.iter().product()];
    reader.read(&mut values)?;
    Ok((reader.shape, values))
}
