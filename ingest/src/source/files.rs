//! The files of a container, local or in a bucket, read by position from many threads at once.

use super::MAX_FILE_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokengrid_store::{Blob, Bucket, Fetch, Object, Staged};

/// Most files held open. More are opened each time that they are read, as files in a folder are: a thousand shards would not
/// fit into the usual limit of 1024 open files.
const MAX_OPEN_FILES: usize = 128;

/// Share of the files that the system lets this process open which one source may hold: the rest of the program needs some.
const OPEN_FILES_SHARE: usize = 4;

/// Files of one source that may be open at a time, at least one.
pub(super) fn max_open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a structure that the call may write; it reads nothing.
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    let allowed = if is_known { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { usize::MAX };
    (allowed / OPEN_FILES_SHARE).clamp(1, MAX_OPEN_FILES)
}

/// A container's file: what it is called, and where its bytes are.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    /// At the path itself.
    Here,
    /// In a local copy, which stays while this lives.
    Staged(PathBuf, #[expect(dead_code, reason = "held for its lifetime")] Arc<Staged>),
    /// In a bucket, read by ranges.
    Object(Bucket, Object),
}

impl SourceFile {
    /// A local file.
    pub(super) fn here(path: PathBuf) -> SourceFile {
        SourceFile { path, bytes: Bytes::Here }
    }

    /// The local copy of an object, which is called by its URL.
    pub(super) fn staged(url: PathBuf, copy: PathBuf, staged: &Arc<Staged>) -> SourceFile {
        SourceFile { path: url, bytes: Bytes::Staged(copy, Arc::clone(staged)) }
    }

    /// An object.
    pub(super) fn object(url: PathBuf, bucket: Bucket, object: Object) -> SourceFile {
        SourceFile { path: url, bytes: Bytes::Object(bucket, object) }
    }

    pub(super) fn open(&self) -> io::Result<Blob> {
        match &self.bytes {
            Bytes::Here => open_regular(&self.path).map(Blob::File),
            Bytes::Staged(copy, _) => open_regular(copy).map(Blob::File),
            Bytes::Object(bucket, object) => Ok(Blob::Object(bucket.clone(), object.clone())),
        }
    }

    fn is_object(&self) -> bool {
        matches!(self.bytes, Bytes::Object(..))
    }
}

/// As what it is called: names and endings count wherever the bytes are.
impl Deref for SourceFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Files by number.
#[derive(Debug)]
pub(super) struct FileSet {
    files: Vec<(SourceFile, Option<Blob>)>,
}

impl FileSet {
    /// Those that cannot be opened fail when they are read.
    pub(super) fn new(files: Vec<SourceFile>) -> FileSet {
        let held = max_open_files();
        let open = |(number, file): (usize, SourceFile)| {
            // An object takes no descriptor.
            let is_held = number < held || file.is_object();
            let opened = is_held.then(|| file.open().ok()).flatten();
            (file, opened)
        };
        FileSet { files: files.into_iter().enumerate().map(open).collect() }
    }

    /// Runs `read` with file number `number`.
    pub(super) fn with<T>(&self, number: u32, read: impl FnOnce(&Blob) -> io::Result<T>) -> io::Result<T> {
        match &self.files[number as usize] {
            (_, Some(blob)) => read(blob),
            (file, None) => read(&file.open()?),
        }
    }

    /// Replaces what `into` holds by `length` bytes at `at`. The caller knows that the file was that long.
    pub(super) fn read(&self, number: u32, at: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.try_reserve(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        into.resize(length, 0);
        self.with(number, |blob| blob.read_exact_at(into, at))
    }

    /// Begins to read a range of an object; `None` for a local file, where reading ahead gains nothing.
    pub(super) fn fetch(&self, number: u32, range: Range<u64>) -> Option<Fetch> {
        match &self.files[number as usize].1 {
            Some(Blob::Object(bucket, object)) => bucket.fetch(&object.key, range, object.tag.as_deref()).ok(),
            _ => None,
        }
    }

    /// Whether the bytes come from a bucket each time that they are read.
    pub(super) fn is_remote(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_object())
    }
}

/// Opens a file for reading, unless it is a pipe or a device: opening those may block forever.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(path)?;
    File::open(path)
}

/// The length of a regular file.
fn check_regular(path: &Path) -> io::Result<u64> {
    let metadata = path.metadata()?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Appends a whole file, one of at most [`MAX_FILE_BYTES`]. `before` is called with its length before memory is taken.
pub(super) fn read_file(path: &Path, into: &mut Vec<u8>, before: &mut dyn FnMut(u64)) -> io::Result<()> {
    // Asked before opening: opening a named pipe would wait for a writer.
    let length = check_regular(path)?;
    if length > MAX_FILE_BYTES {
        return Err(too_large());
    }
    before(length);
    into.try_reserve(length as usize + 1).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(into)?;
    if read as u64 > MAX_FILE_BYTES { Err(too_large()) } else { Ok(()) }
}

/// The error of an image beyond [`MAX_FILE_BYTES`].
pub(super) fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE_BYTES} bytes"))
}
