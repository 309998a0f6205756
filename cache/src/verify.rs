//! Is every byte what was written?

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::error::CacheError;
use crate::fsio::{io_error, list_names};
use crate::manifest::{ByteRange, MANIFEST_FILE, Manifest, QUARANTINE_FILE, ShardEntry};
use crate::shard::Shard;

/// Bytes read and hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What [`verify()`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Everything that is wrong; empty for a good cache.
    pub problems: Vec<Problem>,
    /// Rows according to the manifest (0 when it cannot be used).
    pub rows: usize,
    /// Shards according to the manifest.
    pub shards: usize,
    /// Bytes that were read and hashed.
    pub bytes: u64,
}

/// One thing that is wrong with a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The file: a shard, the manifest or the quarantine list.
    pub shard: String,
    /// The row group of the shard, where it is known.
    pub row_group: Option<usize>,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.row_group {
            Some(row_group) => write!(f, "{}, row group {row_group}: {}", self.shard, self.what),
            None => write!(f, "{}: {}", self.shard, self.what),
        }
    }
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads every byte of the cache in `dir` and compares every checksum and count.
///
/// Finds any altered byte of a shard, the manifest or the quarantine list; truncated, missing, surplus and swapped
/// files; and shards or a manifest of another job. `progress` is called with the bytes done and the bytes in total.
///
/// # Errors
/// [`CacheError::NotACache`] and [`CacheError::Unfinished`] where there is no manifest, [`CacheError::NewerVersion`],
/// [`CacheError::Io`] when a file cannot be read. Damage is no error of this function: it is in the report.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, CacheError> {
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => manifest,
        Err(
            error @ (CacheError::ManifestSyntax { .. }
            | CacheError::ManifestChecksum { .. }
            | CacheError::ManifestField { .. }),
        ) => {
            // Nothing else can be said without it.
            let what = with_cause(&error);
            let problems = vec![Problem { shard: MANIFEST_FILE.to_owned(), row_group: None, what }];
            return Ok(VerifyReport { problems, ..VerifyReport::default() });
        }
        Err(error) => return Err(error),
    };
    let total = manifest.quarantine.bytes + manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>();
    let mut verifier = Verifier { dir, progress, total, report: VerifyReport::default() };
    verifier.report.rows = manifest.rows;
    verifier.report.shards = manifest.shards.len();
    for entry in &manifest.shards {
        verifier.shard(&manifest, entry)?;
    }
    verifier.quarantine(&manifest)?;
    verifier.surplus(&manifest)?;
    Ok(verifier.report)
}

struct Verifier<'a> {
    dir: &'a Path,
    progress: &'a mut dyn FnMut(u64, u64),
    total: u64,
    report: VerifyReport,
}

impl Verifier<'_> {
    fn problem(&mut self, file: &str, row_group: Option<usize>, what: impl Into<String>) {
        self.report.problems.push(Problem { shard: file.to_owned(), row_group, what: what.into() });
    }

    fn shard(&mut self, manifest: &Manifest, entry: &ShardEntry) -> Result<(), CacheError> {
        let path = self.dir.join(&entry.file);
        let Some(mut file) = self.open(&entry.file)? else {
            return Ok(());
        };
        let size = file.metadata().map_err(io_error("read the size of", &path))?.len();
        if size != entry.bytes {
            self.problem(&entry.file, None, format!("the file has {size} bytes, expected {}", entry.bytes));
        }
        let whole = self.hash(&mut file, &path, entry.bytes)?;
        if size != entry.bytes || whole != entry.blake3 {
            return self.localize(entry);
        }
        // The bytes are those that the manifest vouches for; is it the manifest of these shards?
        let structure = Shard::open(&path, Some(entry)).and_then(|shard| {
            shard.check_belongs(&manifest.job, manifest.grid_spec(), manifest.views)?;
            shard.check_entry(entry)
        });
        match structure {
            Err(error @ CacheError::Io { .. }) => return Err(error),
            Err(error) => self.problem(&entry.file, None, with_cause(&error)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Names the row groups of a damaged shard, going by the manifest alone: the shard's own footer may be damaged.
    fn localize(&mut self, entry: &ShardEntry) -> Result<(), CacheError> {
        let path = self.dir.join(&entry.file);
        let mut file = File::open(&path).map_err(io_error("open", &path))?;
        let groups = entry.row_groups.iter().enumerate().map(|(index, group)| (Some(index), &group.range));
        for (row_group, range) in groups.chain([(None, &entry.footer)]) {
            let part = if row_group.is_some() { "row group" } else { "page index and footer" };
            let actual = hash_prefix(&mut file, range.bytes, &mut |_| {}).map_err(io_error("read", &path))?;
            if actual != range.blake3 {
                let ByteRange { offset, bytes, .. } = range;
                let end = offset + bytes;
                self.problem(
                    &entry.file,
                    row_group,
                    format!("{part} (bytes {offset}..{end}) was altered or is cut off"),
                );
            }
        }
        Ok(())
    }

    fn quarantine(&mut self, manifest: &Manifest) -> Result<(), CacheError> {
        let path = self.dir.join(QUARANTINE_FILE);
        let Some(mut file) = self.open(QUARANTINE_FILE)? else {
            return Ok(());
        };
        let expected = &manifest.quarantine;
        let size = file.metadata().map_err(io_error("read the size of", &path))?.len();
        let blake3 = self.hash(&mut file, &path, expected.bytes)?;
        if size != expected.bytes || blake3 != expected.blake3 {
            self.problem(QUARANTINE_FILE, None, "the list was altered");
        }
        Ok(())
    }

    /// Parquet files that the manifest does not name: a glob over the folder would read them as rows.
    fn surplus(&mut self, manifest: &Manifest) -> Result<(), CacheError> {
        for name in list_names(self.dir)? {
            let known = manifest.shards.iter().any(|entry| entry.file == name);
            if name.ends_with(".parquet") && !name.starts_with('.') && !known {
                self.problem(&name, None, "the manifest does not name this file: remove it");
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<Option<File>, CacheError> {
        let path = self.dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.problem(name, None, "the file is missing");
                Ok(None)
            }
            Err(e) => Err(io_error("open", &path)(e)),
        }
    }

    /// Hashes the first `bytes` bytes of a file (fewer when it is shorter) and reports progress.
    fn hash(&mut self, file: &mut File, path: &Path, bytes: u64) -> Result<String, CacheError> {
        let report = &mut self.report;
        let (progress, total) = (&mut self.progress, self.total);
        hash_prefix(file, bytes, &mut |read| {
            report.bytes += read;
            progress(report.bytes, total);
        })
        .map_err(io_error("read", path))
    }
}

fn hash_prefix(file: &mut File, bytes: u64, progress: &mut dyn FnMut(u64)) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut rest = file.take(bytes);
    loop {
        let read = match rest.read(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
        progress(read as u64);
    }
}

/// One line with the causes, for a report that has no error chain.
fn with_cause(error: &CacheError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
