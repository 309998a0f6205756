//! A cache out of Parquet files with lists of tokens.

use crate::cancel;
use crate::error::CacheError;
use crate::format::job::JobSpec;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, job_of, width_of};
use crate::import::list_reader::ListReader;
use crate::import::seen_keys::{SeenKeys, TwoPlaces, repeated_row};
use crate::import::waiting_rows::OwnedRows;
use crate::write::writer::{Finished, OpenMode};
use std::path::{Path, PathBuf};

/// Imports Parquet files with tokens as lists of integers; labels, `key`, `view`, `crop_x`, `crop_y` and `flip` where
/// they are there. A file that [`crate::export_parquet`] wrote gives the cache that it was written from, and `options`
/// are not used.
///
/// # Errors
/// [`CacheError::ImportParquet`]; [`CacheError::NoRows`]; otherwise as [`crate::import_npy`].
pub fn import_parquet(
    files: &[PathBuf],
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let (tokens, label) = (options.tokens_column.as_deref(), options.label_column.as_deref());
    let readers: Result<Vec<_>, CacheError> =
        files.iter().map(|path| Ok((path, ListReader::open(path, tokens, label)?))).collect();
    let readers = readers?;
    let rows = readers.iter().map(|(_, reader)| reader.num_rows()).sum::<usize>();
    let nothing = || CacheError::Import {
        path: PathBuf::new(),
        what: "number of files",
        expected: "at least 1".into(),
        actual: "0".into(),
    };
    let (path, first) = readers.first().ok_or_else(nothing)?;
    if rows == 0 {
        let what = format!("its row groups and those of the other files are empty (files: {})", readers.len());
        return Err(CacheError::NoRows { path: (*path).clone(), what });
    }
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
    // A key of our own exports may be in two splits.
    if first.identity.is_none() {
        refuse_repeated(&readers, views)?;
    }
    let mut importer = Importer::of(path, job, &options.key_prefix, out, mode)?;
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

/// Refuses files in which two images have the same key.
fn refuse_repeated(readers: &[(&PathBuf, ListReader)], views: usize) -> Result<(), CacheError> {
    let mut keys = SeenKeys::default();
    visit_image_keys(readers, views, &mut |_, _, key| {
        keys.add(key);
        Ok(())
    })?;
    let Some(hash) = keys.repeated() else { return Ok(()) };
    let mut places = TwoPlaces::of(hash);
    visit_image_keys(readers, views, &mut |path, row, key| match places
        .take(key, || format!("row {row} of {}", path.display()))
    {
        None => Ok(()),
        Some(first) => Err(repeated_row(path, first, key, row)),
    })
}

/// Called with a file, a row of it, counted from 0, and the key there.
type VisitKey<'a> = dyn FnMut(&Path, usize, &str) -> Result<(), CacheError> + 'a;

/// Visits the keys of images in files that have them: those of their first rows.
fn visit_image_keys(
    readers: &[(&PathBuf, ListReader)],
    views: usize,
    visit: &mut VisitKey<'_>,
) -> Result<(), CacheError> {
    let mut rows_before = 0;
    for (path, reader) in readers {
        let mut row_of_file = 0;
        for group in 0..reader.num_groups() {
            cancel::check()?;
            let (keys, rows) = reader.read_keys(group)?;
            for (row, key) in (row_of_file..).zip(keys.unwrap_or_default()) {
                if (rows_before + row) % views == 0 {
                    visit(path, row, &String::from_utf8_lossy(key.data()))?;
                }
            }
            row_of_file += rows;
        }
        rows_before += row_of_file;
    }
    Ok(())
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
