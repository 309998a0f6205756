//! A cache out of what LlamaGen's extraction wrote: `<name>_codes/<i>.npy` and `<name>_labels/<i>.npy`.

use crate::error::CacheError;
use crate::files::npy::NpyReader;
use crate::files::small::list_names;
use crate::import::arrays::import_npy_pairs;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, square_of};
use crate::write::writer::{Finished, OpenMode};
use std::path::{Path, PathBuf};

/// The endings of LlamaGen's folders.
pub(crate) const CODES: &str = "_codes";
pub(crate) const LABELS: &str = "_labels";

/// Imports the pair of folders in `dir`: one file per image, `[1, views, H * W]` tokens and a label. A grid of 0 x 0 stands
/// for a square one of as many tokens as the last axis of the first file has.
///
/// # Errors
/// [`CacheError::Import`] where there is not exactly one pair; otherwise as [`import_npy_pairs`].
pub fn import_llamagen(
    dir: &Path,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let (codes, labels) = folders_in(dir)?;
    let mut options = options.clone();
    if options.grid == (0, 0) {
        options.grid = grid_of(&codes)?;
    }
    import_npy_pairs(&codes, &labels, &options, out, mode)
}

fn folders_in(dir: &Path) -> Result<(PathBuf, PathBuf), CacheError> {
    let names = list_names(dir)?;
    let stems = names.iter().filter_map(|name| name.strip_suffix(CODES));
    let pairs: Vec<_> = stems.filter(|stem| names.iter().any(|name| *name == format!("{stem}{LABELS}"))).collect();
    match pairs.as_slice() {
        [stem] => Ok((dir.join(format!("{stem}{CODES}")), dir.join(format!("{stem}{LABELS}")))),
        _ => {
            let expected = format!("one pair NAME{CODES}, NAME{LABELS} (of several, give --tokens and --labels)");
            Err(import_error(dir, "number of pairs of folders", expected, pairs.len()))
        }
    }
}

fn grid_of(codes: &Path) -> Result<(u32, u32), CacheError> {
    let names = list_names(codes)?;
    let first = names.iter().find(|name| name.ends_with(".npy"));
    let nothing = || CacheError::NoRows { path: codes.into(), what: "there is no file <i>.npy in it".into() };
    let path = codes.join(first.ok_or_else(nothing)?);
    let shape = NpyReader::open(&path)?.shape;
    square_of(&path, shape.last().copied().unwrap_or(0))
}
