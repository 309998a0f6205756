//! A cache as arrays, or as Parquet with lists.

use crate::error::{CacheError, io_error};
use crate::export::folder::{ExportFolder, NPY_FILES, PARQUET_FILE};
use crate::export::list_writer::ListWriter;
use crate::export::visit_all;
use crate::format::identity::JobIdentity;
use crate::import::error::import_error;
use crate::npy::Header;
use crate::read::cache::TokenCache;
use crate::write::writer::OpenMode;
use std::path::Path;

/// Writes the rows of a cache to `out` as `tokens.npy` (int32, `[rows, H * W]`), `labels.npy` (int64, `[rows]`) and
/// `keys.txt` (one line per row): what [`crate::import_npy`] reads. Rows are in the order of the cache, the views of an
/// image next to each other; crops are not part of it. What an export wrote to `out` before is replaced, and with
/// [`OpenMode::Overwrite`] any file of these names.
///
/// # Errors
/// [`CacheError::ExportTarget`], [`CacheError::ExportIntoCache`], [`CacheError::ExportInUse`];
/// [`CacheError::Io`], [`CacheError::DiskFull`]; as [`TokenCache::meta`]
/// where the cache is damaged.
///
/// ```
/// use tokengrid_cache::{ImportOptions, OpenMode, TokenCache, export_npy, import_npy, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (dir, npy) = (&folder.path().join("cache"), &folder.path().join("npy"));
/// # let again = &folder.path().join("again");
/// write_synthetic_cache(dir, 10, 2)?;
/// let cache = TokenCache::open(dir)?;
/// export_npy(&cache, npy, OpenMode::Resume)?;
///
/// let options = ImportOptions { grid: (16, 16), bits: Some(18), views: 2, ..Default::default() };
/// let (tokens, labels, keys) = (npy.join("tokens.npy"), npy.join("labels.npy"), npy.join("keys.txt"));
/// import_npy(&tokens, Some(&labels), Some(&keys), &options, again, OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(again)?.content_hash(), cache.content_hash());
/// # Ok(()) }
/// ```
pub fn export_npy(cache: &TokenCache, out: &Path, mode: OpenMode) -> Result<(), CacheError> {
    let folder = ExportFolder::open(out, &NPY_FILES, mode)?;
    let (rows, num_tokens) = (cache.num_rows(), cache.grid().num_tokens());
    let [tokens_name, labels_name, keys_name] = NPY_FILES;
    let mut tokens = folder.create(tokens_name)?;
    let mut labels = folder.create(labels_name)?;
    let mut keys = folder.create(keys_name)?;
    Header::write(&mut tokens, "<i4", &[rows, num_tokens]).map_err(io_error("write", tokens.path()))?;
    Header::write(&mut labels, "<i8", &[rows]).map_err(io_error("write", labels.path()))?;
    let mut grid = Vec::with_capacity(4 * num_tokens);
    visit_all(cache, &mut |_, rows| {
        for row in rows {
            grid.clear();
            row.tokens.iter().for_each(|token| grid.extend_from_slice(&token.to_le_bytes()));
            tokens.put(&grid)?;
            labels.put(&i64::from(row.label).to_le_bytes())?;
            if row.key.contains(['\n', '\r']) {
                let expected =
                    "without line breaks: keys.txt has a line per row; give --format parquet-list".to_owned();
                return Err(import_error(cache.dir(), "key", expected, format!("{:?}", row.key)));
            }
            keys.put(format!("{}\n", row.key).as_bytes())?;
        }
        Ok(())
    })?;
    folder.publish(vec![tokens, labels, keys])
}

/// Writes the rows of a cache to `out/tokens.parquet` with `tokens` as a list of int32, and all other columns; `split`
/// where the cache has splits. The description of the job goes into the metadata, so that [`crate::import_parquet`] gives the same cache again.
///
/// # Errors
/// As [`export_npy`].
///
/// ```
/// use tokengrid_cache::{ImportOptions, OpenMode, TokenCache, export_parquet, import_parquet, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (dir, lists) = (&folder.path().join("cache"), &folder.path().join("lists"));
/// # let again = &folder.path().join("again");
/// write_synthetic_cache(dir, 10, 2)?;
/// let cache = TokenCache::open(dir)?;
/// export_parquet(&cache, lists, OpenMode::Resume)?;
/// import_parquet(&[lists.join("tokens.parquet")], &ImportOptions::default(), again, OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(again)?.content_hash(), cache.content_hash());
/// # Ok(()) }
/// ```
pub fn export_parquet(cache: &TokenCache, out: &Path, mode: OpenMode) -> Result<(), CacheError> {
    let folder = ExportFolder::open(out, &[PARQUET_FILE], mode)?;
    let output = folder.create(PARQUET_FILE)?;
    let splits = cache.splits();
    let split_of = |image: usize| splits.iter().find(|(_, images)| images.contains(&image)).map(|(name, _)| *name);
    let mut writer = ListWriter::new(output, &exported_job(cache))?;
    visit_all(cache, &mut |image, rows| rows.iter().try_for_each(|row| writer.push(row, split_of(image))))?;
    folder.publish(vec![writer.finish()?])
}

/// The job of the rows that are there: images in quarantine are not exported, and count as left out.
fn exported_job(cache: &TokenCache) -> JobIdentity {
    let manifest = cache.manifest();
    let mut job = manifest.identity();
    job.source.excluded += manifest.quarantine.images;
    job.source.images = manifest.images;
    for split in &mut job.splits {
        let images = cache.split_images(&split.name).unwrap_or_default();
        split.images = [images.start, images.end];
    }
    job
}
