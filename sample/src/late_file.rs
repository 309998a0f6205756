//! A file that reports its first failure at the end.
//!
//! `ZipWriter` closes its archive when it is dropped, and prints what fails then to stderr. To it, this file never fails: the
//! failure is passed to the holder of the [`Failure`].

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokengrid_cache::AtomicFile;

/// The first failure of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// Returns the failure, if there was one; once.
    ///
    /// # Errors
    /// The failure.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LateFile {
    file: AtomicFile,
    failure: Failure,
    has_failed: bool,
    /// Where the file would be if nothing had failed, and how long.
    position: u64,
    length: u64,
}

impl LateFile {
    /// Takes over a new file.
    pub(crate) fn new(file: AtomicFile) -> (LateFile, Failure) {
        let failure = Failure::default();
        (LateFile { file, failure: failure.clone(), has_failed: false, position: 0, length: 0 }, failure)
    }

    /// The file, if nothing has failed.
    ///
    /// # Errors
    /// The failure.
    pub(crate) fn into_inner(self) -> io::Result<AtomicFile> {
        self.failure.check().map(|()| self.file)
    }

    /// Calls `act` unless an earlier call failed, and keeps its failure.
    fn attempt(&mut self, act: impl FnOnce(&mut AtomicFile) -> io::Result<()>) {
        if self.has_failed {
            return;
        }
        if let Err(error) = act(&mut self.file) {
            self.has_failed = true;
            *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

impl Write for LateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|file| file.write_all(bytes));
        self.position += bytes.len() as u64;
        self.length = self.length.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|file| file.flush());
        Ok(())
    }
}

impl Seek for LateFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.length, offset),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "a position before the file");
        self.position = base.checked_add_signed(offset).ok_or_else(before_start)?;
        let position = self.position;
        self.attempt(|file| file.seek(SeekFrom::Start(position)).map(drop));
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_archive_is_reported_once_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut late, failure) = LateFile::new(AtomicFile::create(&folder.path().join("a.zip")).unwrap());
        late.attempt(|_| Err(io::ErrorKind::StorageFull.into()));
        let mut zip = zip::ZipWriter::new(late);
        zip.start_file("a", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&[1; 100]).unwrap();
        assert_eq!(failure.check().unwrap_err().kind(), io::ErrorKind::StorageFull);
        zip.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn positions_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut late, _) = LateFile::new(AtomicFile::create(&path).unwrap());
        late.write_all(b"abcdef").unwrap();
        assert_eq!(late.seek(SeekFrom::Start(1)).unwrap(), 1);
        late.write_all(b"XY").unwrap();
        assert_eq!(late.stream_position().unwrap(), 3);
        assert_eq!(late.seek(SeekFrom::End(-1)).unwrap(), 5);
        late.write_all(b"Z").unwrap();
        assert!(late.seek(SeekFrom::Current(-7)).is_err());
        late.into_inner().unwrap().publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"aXYdeZ");
    }
}
