//! A cache as a folder with an `.npz` per image, below a folder per class.

use crate::error::{CacheError, io_error};
use crate::export::folder::ExportFolder;
use crate::export::rows::remove_folder;
use crate::export::visit_all;
use crate::format::row::Row;
use crate::format::split::Split;
use crate::import::error::import_error;
use crate::import::npz::{ENDING, FLIPPED};
use crate::npy::Header;
use crate::read::cache::TokenCache;
use crate::write::writer::OpenMode;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Component, Path};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The folder that is written.
const FOLDER: &str = "npz";

/// The array of tokens.
const TOKENS: &str = "tokens";

/// Writes `out/npz/<class>/<key>.npz` for each image, which MAR's `CachedFolder` lists as it does latents: `tokens` (int32, `[H, W]`),
/// and `tokens_flip` where the second of two views is the mirrored image; more views are `[views, H, W]`. Below a folder per split in a
/// cache that has splits. Images without a class lie where their keys say. Returns the name of the folder, which gets
/// it when it is whole.
///
/// # Errors
/// [`CacheError::ExportTarget`] where there is such a folder already, unless `mode` says to replace it; [`CacheError::Import`] for a
/// key that is no relative path, or two that are one file, and for names of classes and splits that cannot be folders; [`CacheError::Io`]; the variant that names the damage of the cache.
pub fn export_npz(cache: &TokenCache, out: &Path, mode: OpenMode) -> Result<Vec<String>, CacheError> {
    // Whether the folder is free for an export, and one at a time.
    let _folder = ExportFolder::open(out, &[], mode)?;
    let (begun, whole) = (out.join(format!(".{FOLDER}.tmp")), out.join(FOLDER));
    if whole.exists() && mode != OpenMode::Overwrite {
        return Err(CacheError::ExportTarget { path: whole });
    }
    remove_folder(&begun)?;
    fs::create_dir_all(&begun).map_err(io_error("create folder", &begun))?;
    let classes = folders_of(cache, "class", &cache.manifest().classes)?;
    let splits = &cache.manifest().splits;
    let names: Vec<String> = splits.iter().map(|split| split.name.clone()).collect();
    let split_folders = folders_of(cache, "split", &names)?;
    let split_of = |image: usize| {
        let is_of = |split: &&Split| cache.split_images(&split.name).is_some_and(|images| images.contains(&image));
        splits.iter().position(|split| is_of(&split)).map(|place| &split_folders[place])
    };
    let mut last_folder = None;
    visit_all(cache, &mut |image, rows| {
        let Some(row) = rows.first() else { return Ok(()) };
        let name = file_of(cache, &classes, row)?;
        let path = split_of(image).map_or(begun.clone(), |split| begun.join(split)).join(name);
        if let Some(folder) = path.parent().filter(|folder| last_folder.as_deref() != Some(*folder)) {
            fs::create_dir_all(folder).map_err(io_error("create folder", folder))?;
            last_folder = Some(folder.to_path_buf());
        }
        write_image(cache, &path, rows)
    })?;
    remove_folder(&whole)?;
    fs::rename(&begun, &whole).map_err(io_error("rename to its final name", &whole))?;
    Ok(vec![FOLDER.to_owned()])
}

/// The folders of classes or splits, one for each, in the folder that is written.
fn folders_of(cache: &TokenCache, what: &'static str, names: &[String]) -> Result<Vec<String>, CacheError> {
    let folders: Vec<String> = names.iter().map(|name| name.replace('/', "_")).collect();
    let mut seen = HashSet::new();
    for (name, folder) in names.iter().zip(&folders) {
        let is_folder = Path::new(folder).components().eq([Component::Normal(OsStr::new(folder))]);
        if !is_folder || !seen.insert(folder) {
            let expected = "the name of a folder that no other one has ('/' becomes '_')".to_owned();
            return Err(import_error(cache.dir(), what, expected, format!("{name:?}")));
        }
    }
    Ok(folders)
}

/// The relative path of an image's file.
fn file_of(cache: &TokenCache, classes: &[String], row: &Row<'_>) -> Result<String, CacheError> {
    let is_below = Path::new(row.key).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_below || row.key.is_empty() {
        return Err(import_error(cache.dir(), "key", "a relative path".into(), row.key));
    }
    let number = usize::try_from(row.label).ok();
    let class = number.map(|number| classes.get(number).cloned().unwrap_or_else(|| format!("{number:05}")));
    Ok(match class {
        Some(class) if !row.key.starts_with(&format!("{class}/")) => format!("{class}/{}{ENDING}", row.key),
        _ => format!("{}{ENDING}", row.key),
    })
}

fn write_image(cache: &TokenCache, path: &Path, rows: &[Row<'_>]) -> Result<(), CacheError> {
    let failed = |error: zip::result::ZipError| io_error("write", path)(error.into());
    let file = File::create_new(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            import_error(cache.dir(), "key", "another file for each image".into(), path.display())
        }
        _ => io_error("create", path)(error),
    })?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let grid = cache.grid();
    let sides = [grid.height as usize, grid.width as usize];
    match rows {
        [only] => put(&mut archive, TOKENS, &sides, &[only]).map_err(failed)?,
        [plain, flipped] if flipped.flip && !plain.flip => {
            put(&mut archive, TOKENS, &sides, &[plain]).map_err(failed)?;
            put(&mut archive, &format!("{TOKENS}{FLIPPED}"), &sides, &[flipped]).map_err(failed)?;
        }
        _ => {
            let shape = [rows.len(), sides[0], sides[1]];
            put(&mut archive, TOKENS, &shape, &rows.iter().collect::<Vec<_>>()).map_err(failed)?;
        }
    }
    archive.finish().map_err(failed)?.flush().map_err(io_error("write", path))
}

/// Writes the tokens of `rows` as an array.
fn put<W: Write + std::io::Seek>(
    archive: &mut ZipWriter<W>,
    name: &str,
    shape: &[usize],
    rows: &[&Row<'_>],
) -> zip::result::ZipResult<()> {
    // The same bytes at any time: as numpy, the first day that a zip knows.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    archive.start_file(format!("{name}.npy"), options)?;
    let mut bytes = Vec::new();
    Header::write(&mut bytes, "<i4", shape)?;
    rows.iter().flat_map(|row| row.tokens).for_each(|token| bytes.extend_from_slice(&token.to_le_bytes()));
    archive.write_all(&bytes)?;
    Ok(())
}
