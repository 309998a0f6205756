//! A cache as arrays, or as Parquet with lists.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::list_parquet::ListWriter;
use super::npy::write_header;
use crate::error::CacheError;
use crate::fsio::{io_error, remove_if_present, sync_dir};
use crate::job::JobIdentity;
use crate::reader::TokenCache;

/// The files of an export.
const FILES: [&str; 4] = ["tokens.npy", "labels.npy", "keys.txt", "tokens.parquet"];

/// The name of a file that is being written.
fn temporary(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Makes the folder, and removes what an export left there that was killed.
fn prepare(out: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(out).map_err(io_error("create folder", out))?;
    FILES.iter().try_for_each(|name| remove_if_present(&out.join(temporary(name))))
}

/// Writes the rows of a cache to `out` as `tokens.npy` (int32, `[rows, H * W]`), `labels.npy` (int64, `[rows]`) and
/// `keys.txt` (one line a row): what [`super::import_npy`] reads. Rows are in the order of the cache, the views of an
/// image next to each other; crops are not part of it.
///
/// # Errors
/// [`CacheError::Io`], [`CacheError::DiskFull`]; the variant that names the damage of the cache.
///
/// ```
/// use tokengrid_cache::{ImportOptions, OpenMode, TokenCache, export_npy, import_npy, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (dir, npy) = (&folder.path().join("cache"), &folder.path().join("npy"));
/// # let again = &folder.path().join("again");
/// write_synthetic_cache(dir, 10, 2)?;
/// let cache = TokenCache::open(dir)?;
/// export_npy(&cache, npy)?;
///
/// let options = ImportOptions { grid: (16, 16), bits: Some(18), views: 2, ..Default::default() };
/// let (tokens, labels, keys) = (npy.join("tokens.npy"), npy.join("labels.npy"), npy.join("keys.txt"));
/// import_npy(&tokens, Some(&labels), Some(&keys), &options, again, OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(again)?.content_hash(), cache.content_hash());
/// # Ok(()) }
/// ```
pub fn export_npy(cache: &TokenCache, out: &Path) -> Result<(), CacheError> {
    prepare(out)?;
    let (rows, num_tokens) = (cache.num_rows(), cache.grid().num_tokens());
    let mut tokens = Output::create(out, "tokens.npy")?;
    let mut labels = Output::create(out, "labels.npy")?;
    let mut keys = Output::create(out, "keys.txt")?;
    tokens.write(|file| write_header(file, "<i4", &[rows, num_tokens]))?;
    labels.write(|file| write_header(file, "<i8", &[rows]))?;
    cache.visit_images(0..cache.num_images(), &|_| true, &mut |_, rows| {
        for row in rows {
            tokens.write(|file| row.tokens.iter().try_for_each(|token| file.write_all(&token.to_le_bytes())))?;
            labels.write(|file| file.write_all(&i64::from(row.label).to_le_bytes()))?;
            keys.write(|file| writeln!(file, "{}", row.key.replace('\n', " ")))?;
        }
        Ok(())
    })?;
    [tokens, labels, keys].into_iter().try_for_each(Output::publish)?;
    sync_dir(out)
}

/// Writes the rows of a cache to `out/tokens.parquet` with `tokens` as a list of int32, and all other columns; the
/// description of the job goes into the metadata, so that [`super::import_parquet`] gives the same cache again.
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
/// export_parquet(&cache, lists)?;
/// import_parquet(&[lists.join("tokens.parquet")], &ImportOptions::default(), again, OpenMode::Resume)?;
/// assert_eq!(TokenCache::open(again)?.content_hash(), cache.content_hash());
/// # Ok(()) }
/// ```
pub fn export_parquet(cache: &TokenCache, out: &Path) -> Result<(), CacheError> {
    prepare(out)?;
    let mut output = Output::create(out, "tokens.parquet")?;
    let file = output.file.take().expect("it was just created");
    let mut writer = ListWriter::new(file, &output.path, &exported_job(cache))?;
    cache.visit_images(0..cache.num_images(), &|_| true, &mut |_, rows| {
        rows.iter().try_for_each(|row| writer.push(row))
    })?;
    output.file = Some(writer.finish()?);
    output.publish()?;
    sync_dir(out)
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

/// A file that gets its name when it is whole, and is removed otherwise.
struct Output {
    /// `None` while somebody else writes to it, and once it is published.
    file: Option<BufWriter<File>>,
    path: PathBuf,
    target: PathBuf,
}

impl Output {
    fn create(dir: &Path, name: &str) -> Result<Output, CacheError> {
        let path = dir.join(temporary(name));
        let file = File::create(&path).map_err(io_error("create", &path))?;
        Ok(Output { file: Some(BufWriter::with_capacity(1 << 20, file)), path, target: dir.join(name) })
    }

    fn file(&mut self) -> &mut BufWriter<File> {
        self.file.as_mut().expect("it is not published")
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), CacheError> {
        write(self.file()).map_err(io_error("write", &self.path))
    }

    fn publish(mut self) -> Result<(), CacheError> {
        let file = self.file();
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(io_error("write", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(io_error("rename to its final name", &self.target))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already where it was published.
        let _ = fs::remove_file(&self.path);
    }
}
