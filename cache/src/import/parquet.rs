//! A cache out of Parquet files with lists of tokens.

use crate::cancel;
use crate::error::CacheError;
use crate::format::job::JobSpec;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, job_of, width_of};
use crate::import::list_reader::ListReader;
use crate::import::waiting_rows::OwnedRows;
use crate::write::writer::{Finished, OpenMode};
use std::path::{Path, PathBuf};

/// Imports Parquet files with tokens as lists of integers; labels, `key`, `view`, `crop_x`, `crop_y` and `flip` where
/// they are there. A file that [`crate::export_parquet`] wrote gives the cache that it was written from, and `options`
/// are not used.
///
/// # Errors
/// [`CacheError::ImportParquet`]; otherwise as [`crate::import_npy`].
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
