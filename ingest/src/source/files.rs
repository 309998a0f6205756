//! The files of a container, read by position from many threads at once.

use super::MAX_FILE_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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

/// Files by number.
#[derive(Debug)]
pub(super) struct FileSet {
    files: Vec<(PathBuf, Option<File>)>,
}

impl FileSet {
    /// The files at `paths`; those that cannot be opened fail when they are read.
    pub(super) fn new(paths: Vec<PathBuf>) -> FileSet {
        let held = max_open_files();
        let open = |(number, path): (usize, PathBuf)| {
            let file = (number < held).then(|| open_regular(&path).ok()).flatten();
            (path, file)
        };
        FileSet { files: paths.into_iter().enumerate().map(open).collect() }
    }

    /// Runs `read` with file number `number`.
    pub(super) fn with<T>(&self, number: u32, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match &self.files[number as usize] {
            (_, Some(file)) => read(file),
            (path, None) => read(&open_regular(path)?),
        }
    }

    /// Replaces what `into` holds by `length` bytes at `at`. The caller knows that the file was that long.
    pub(super) fn read(&self, number: u32, at: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.try_reserve(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        into.resize(length, 0);
        self.with(number, |file| file.read_exact_at(into, at))
    }
}

/// Opens a file for reading, unless it is a pipe or the like: opening those may wait forever.
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

/// Appends a whole file, one of at most [`MAX_FILE_BYTES`]. `before` is told its length before memory is taken.
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

/// As many bytes at `at` as there are, at most the length of `into`.
pub(super) fn read_up_to(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
