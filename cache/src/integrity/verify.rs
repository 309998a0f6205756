//! Is every byte what was written?

use crate::error::{CacheError, io_error};
use crate::files::small::list_names;
use crate::format::attached::{ATTACHED_FOLDER, AttachedFile, attached_path};
use crate::format::manifest::{ByteRange, Manifest, ShardEntry};
use crate::format::names::{MANIFEST_FILE, QUARANTINE_FILE};
use crate::parallel::num_threads;
use crate::remote::staged::LocalFolder;
use crate::shard::open::Shard;
use crate::{cancel, parallel};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read and hashed at a time.
const CHUNK_BYTES: usize = 256 << 10;

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

/// Reads every byte of the cache in `dir` and compares every checksum and count, on all cores.
///
/// Finds any altered byte of a shard, the manifest or the quarantine list; truncated, missing, surplus and swapped
/// files; and shards or a manifest of another job. `progress` is called with the bytes done and the bytes in total.
///
/// # Errors
/// [`CacheError::NotACache`] and [`CacheError::Unfinished`] where there is no manifest, [`CacheError::NewerVersion`],
/// [`CacheError::Io`] when a file cannot be read. Damage is not an error of this function: it is in the report.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, CacheError> {
    verify_with_threads(dir, num_threads(), progress)
}

/// As [`verify()`], with a given number of threads, each of which takes a shard at a time.
///
/// # Errors
/// As [`verify()`].
pub fn verify_with_threads(
    dir: &Path,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, CacheError> {
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => manifest,
        Err(
            error @ (CacheError::ManifestSyntax { .. }
            | CacheError::ManifestChecksum { .. }
            | CacheError::ManifestField { .. }),
        ) => {
            // Nothing else can be said without it.
            let problems = vec![problem(MANIFEST_FILE, None, with_cause(&error))];
            return Ok(VerifyReport { problems, ..VerifyReport::default() });
        }
        Err(error) => return Err(error),
    };
    let local = LocalFolder::unchecked(dir)?;
    let dir = local.path();
    let total = manifest.quarantine.bytes + manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>();
    let mut bytes = 0;
    let mut count = |read| {
        bytes += read;
        progress(bytes, total);
    };
    // The quarantine list comes last, after the shards.
    let files = manifest.shards.len() + 1;
    let problems = parallel::map(threads, files, &mut count, |index, progress| match manifest.shards.get(index) {
        Some(entry) => verify_shard(dir, &manifest, entry, progress),
        None => verify_quarantine(dir, &manifest, progress),
    })?;
    let mut problems = problems.concat();
    problems.extend(surplus(dir, &manifest)?);
    problems.extend(damaged_attachments(dir, &manifest)?);
    Ok(VerifyReport { problems, rows: manifest.rows, shards: manifest.shards.len(), bytes })
}

pub(crate) fn problem(file: &str, row_group: Option<usize>, what: impl Into<String>) -> Problem {
    Problem { shard: file.to_owned(), row_group, what: what.into() }
}

/// What is wrong with one shard.
pub(crate) fn verify_shard(
    dir: &Path,
    manifest: &Manifest,
    entry: &ShardEntry,
    progress: &dyn Fn(u64),
) -> Result<Vec<Problem>, CacheError> {
    let path = dir.join(&entry.file);
    let Some(mut file) = open(&path)? else {
        return Ok(vec![problem(&entry.file, None, "the file is missing")]);
    };
    let size = file.metadata().map_err(io_error("read the size of", &path))?.len();
    let hashes = FileHashes::of(&mut file, entry, progress).map_err(read_error(&path))?;
    let mut problems = Vec::new();
    if size != entry.bytes {
        problems.push(problem(&entry.file, None, format!("the file has {size} bytes, expected {}", entry.bytes)));
    }
    problems.extend(hashes.damaged_parts(entry).into_iter().map(|part| damaged_part(entry, part)));
    if problems.is_empty() && hashes.whole != entry.blake3 {
        // Every part is what the manifest says, and the whole is not: it is the manifest that was edited.
        let what = format!("the file's checksum is {}, by the manifest {}", hashes.whole, entry.blake3);
        problems.push(problem(&entry.file, None, what));
    }
    if !problems.is_empty() {
        return Ok(problems);
    }
    // The bytes are those that the manifest vouches for; is it the manifest of these shards?
    let structure = Shard::open(&path, Some(entry)).and_then(|shard| {
        shard.check_belongs(&manifest.job, manifest.grid_spec(), manifest.views)?;
        shard.check_entry(entry)
    });
    match structure {
        Err(error @ CacheError::Io { .. }) => Err(error),
        Err(error) => Ok(vec![problem(&entry.file, None, with_cause(&error))]),
        Ok(()) => Ok(Vec::new()),
    }
}

/// Names a row group of a damaged shard, going by the manifest alone: the shard's own footer may be damaged.
fn damaged_part(entry: &ShardEntry, part: Option<usize>) -> Problem {
    let (name, range) = match part {
        Some(index) => ("row group", &entry.row_groups[index].range),
        None => ("page index and footer", &entry.footer),
    };
    let (offset, last) = (range.offset, (range.offset + range.bytes).saturating_sub(1));
    problem(&entry.file, part, format!("{name} (bytes {offset} to {last}) was altered or is cut off"))
}

/// Row groups of a file (`None`: page index and footer) whose bytes are not those of the manifest.
pub(crate) fn damaged_parts(path: &Path, entry: &ShardEntry) -> Result<Vec<Option<usize>>, CacheError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let hashes = FileHashes::of(&mut file, entry, &|_| {}).map_err(read_error(path))?;
    Ok(hashes.damaged_parts(entry))
}

/// Hashes of a shard's file from one pass over it: of the whole, and of each part that the manifest names.
struct FileHashes {
    whole: String,
    /// Row groups, then page index and footer.
    parts: Vec<String>,
}

impl FileHashes {
    fn of(file: &mut File, entry: &ShardEntry, progress: &dyn Fn(u64)) -> std::io::Result<FileHashes> {
        let mut whole = blake3::Hasher::new();
        let mut parts = Vec::with_capacity(entry.row_groups.len() + 1);
        // The manifest's check has established that the parts follow each other from the first byte to the last.
        for range in entry.row_groups.iter().map(|group| &group.range).chain([&entry.footer]) {
            let mut part = blake3::Hasher::new();
            read_chunks(file, range.bytes, &mut |bytes| {
                whole.update(bytes);
                part.update(bytes);
                progress(bytes.len() as u64);
            })?;
            parts.push(part.finalize().to_hex().to_string());
        }
        Ok(FileHashes { whole: whole.finalize().to_hex().to_string(), parts })
    }

    fn damaged_parts(&self, entry: &ShardEntry) -> Vec<Option<usize>> {
        let groups = entry.row_groups.iter().enumerate().map(|(index, group)| (Some(index), &group.range));
        let expected = groups.chain([(None, &entry.footer)]);
        let differs =
            |((part, range), hash): ((Option<usize>, &ByteRange), &String)| (range.blake3 != *hash).then_some(part);
        expected.zip(&self.parts).filter_map(differs).collect()
    }
}

/// What is wrong with the quarantine list.
pub(crate) fn verify_quarantine(
    dir: &Path,
    manifest: &Manifest,
    progress: &dyn Fn(u64),
) -> Result<Vec<Problem>, CacheError> {
    let path = dir.join(QUARANTINE_FILE);
    let Some(mut file) = open(&path)? else {
        return Ok(vec![problem(QUARANTINE_FILE, None, "the file is missing")]);
    };
    let expected = &manifest.quarantine;
    let size = file.metadata().map_err(io_error("read the size of", &path))?.len();
    let blake3 = hash_prefix(&mut file, expected.bytes, progress).map_err(read_error(&path))?;
    if size != expected.bytes || blake3 != expected.blake3 {
        return Ok(vec![problem(QUARANTINE_FILE, None, "the list was altered")]);
    }
    Ok(Vec::new())
}

/// Parquet files that the manifest does not name: a glob over the folder would read them as rows.
fn surplus(dir: &Path, manifest: &Manifest) -> Result<Vec<Problem>, CacheError> {
    let is_surplus = |name: &String| {
        let known = manifest.shards.iter().any(|entry| entry.file == *name);
        name.ends_with(".parquet") && !name.starts_with('.') && !known
    };
    let names = list_names(dir)?.into_iter().filter(is_surplus);
    Ok(names.map(|name| problem(&name, None, "the manifest does not name this file: remove it")).collect())
}

/// Files of other programs that are missing or not what the manifest says.
fn damaged_attachments(dir: &Path, manifest: &Manifest) -> Result<Vec<Problem>, CacheError> {
    let mut problems = Vec::new();
    for (name, expected) in &manifest.source.attached {
        let what = match attached_path(dir, name) {
            None => Some("the name is no relative path".to_owned()),
            Some(path) if !path.exists() => {
                Some("the file is missing: run the command that made the cache again to attach it".to_owned())
            }
            Some(path) => {
                let actual = AttachedFile::of(&path)?;
                (actual != *expected)
                    .then(|| format!("the file's checksum is {}, by the manifest {}", actual.blake3, expected.blake3))
            }
        };
        problems.extend(what.map(|what| problem(&format!("{ATTACHED_FOLDER}/{name}"), None, what)));
    }
    Ok(problems)
}

fn open(path: &Path) -> Result<Option<File>, CacheError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("open", path)(e)),
    }
}

/// The hash of the next `bytes` bytes of a file (fewer when it is shorter).
fn hash_prefix(file: &mut File, bytes: u64, progress: &dyn Fn(u64)) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    read_chunks(file, bytes, &mut |chunk| {
        hasher.update(chunk);
        progress(chunk.len() as u64);
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A failed read, or a cancellation during it.
fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> CacheError {
    let failed = io_error("read", path);
    move |error| cancel::check().err().unwrap_or_else(|| failed(error))
}

/// Passes on the next `bytes` bytes of a file (fewer when it is shorter), some at a time.
fn read_chunks(file: &mut File, bytes: u64, take: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(bytes as usize).max(1)];
    let mut rest = file.take(bytes);
    loop {
        let read = match rest.read(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            return Ok(());
        }
        take(&buffer[..read]);
        if cancel::check().is_err() {
            return Err(std::io::Error::from(std::io::ErrorKind::Interrupted));
        }
    }
}

/// One line with the causes, for a report that has no error chain.
pub(crate) fn with_cause(error: &CacheError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
