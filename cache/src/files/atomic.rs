//! The one way to write a file that others read: under a temporary name beside it, fsync, rename, fsync of the folder.
//!
//! After a crash or a power cut, the final name holds the old content or all of the new one. Temporary names are derived
//! from the final name, so that the next attempt takes over what a dead process left; they are short, for any length
//! of the final name; and a lock on the temporary file keeps two processes that write the same name apart.

use crate::files::disk::{is_same_file, sync_folder};
use crate::format::hash::blake3_hex;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Processes that may write one name at the same time; the last one to finish wins.
const WRITERS_MAX: usize = 64;

const TEMPORARY_START: &str = ".tokengrid-";

const TEMPORARY_END: &str = ".tmp";

/// Whether a name in a folder is that of a file that is being written, or was when its process died.
pub fn is_temporary_name(name: &str) -> bool {
    name.starts_with(TEMPORARY_START) && name.ends_with(TEMPORARY_END)
}

/// A file that appears under its name when it is whole. Dropped without [`AtomicFile::publish`], it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    is_published: bool,
}

impl AtomicFile {
    /// Starts a file that is to become `target`, whose folder exists.
    ///
    /// # Errors
    /// Kind `InvalidInput` when `target` names no file; else what the system says of a folder that cannot be written to.
    pub fn create(target: &Path) -> io::Result<AtomicFile> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file");
        let name = target.file_name().ok_or_else(no_name)?;
        let hash = &blake3_hex(name.as_encoded_bytes())[..16];
        for number in 0..WRITERS_MAX {
            let temporary = target.with_file_name(format!("{TEMPORARY_START}{hash}-{number}{TEMPORARY_END}"));
            if let Some(file) = claim(&temporary)? {
                let file = BufWriter::with_capacity(1 << 20, file);
                return Ok(AtomicFile { target: target.into(), temporary, file, is_published: false });
            }
        }
        Err(io::Error::other(format!("{WRITERS_MAX} processes are writing it at this moment")))
    }

    /// Where the file lies until it is published, with all that was written to it: to check it as a whole.
    ///
    /// # Errors
    /// What the system says when buffered bytes cannot be written, such as that the disk is full.
    pub fn unpublished(&mut self) -> io::Result<&Path> {
        self.file.flush()?;
        Ok(&self.temporary)
    }

    /// Gives the file its name, replacing an existing file, and makes that durable.
    ///
    /// # Errors
    /// The disk is full, or the rename fails; nothing is left under the temporary name then.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.flush()?;
        // Before the rename: otherwise a power cut may leave the final name with an empty file.
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        self.is_published = true;
        sync_folder(folder_of(&self.target))
    }
}

/// Opens and locks a temporary file and empties it; `None` while another process has it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        // Some network file systems have no locks. Two processes that write the same name there are on their own.
        Err(TryLockError::Error(_)) => {}
    }
    // Its holder may have renamed it between the two calls above: then this is a published file.
    if !is_same_file(&file, path) {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.is_published {
            // An unpublished file may be what fills the disk. If it stays, the next attempt empties it and uses it again.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole file by way of an [`AtomicFile`].
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::publish`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("report.json");
/// tokengrid_cache::write_atomically(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok(()) }
/// ```
pub fn write_atomically(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.publish()
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_complete_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of the n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a.txt".to_string()], b"old".to_vec()));
        assert!(write_atomically(&folder.path().join("nowhere/a.txt"), b"").is_err());
        assert!(write_atomically(Path::new("/"), b"").is_err());
    }

    #[test]
    fn the_longest_names_work_and_temporary_files_of_a_dead_process_are_reused() {
        let folder = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        let path = folder.path().join(&name);
        let file = AtomicFile::create(&path).unwrap();
        let leftover = file.temporary.clone();
        drop(file);
        fs::write(&leftover, "longer than what comes now").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec![name], b"new".to_vec()));
    }

    #[test]
    fn two_writers_of_one_name_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let mut one = AtomicFile::create(&path).unwrap();
        let mut two = AtomicFile::create(&path).unwrap();
        one.write_all(b"one").unwrap();
        two.write_all(b"second").unwrap();
        one.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        // The temporary name of the first one is free again, and is not the file that was published.
        let three = AtomicFile::create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(three);
        two.publish().unwrap();
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a.txt".to_string()], b"second".to_vec()));
    }
}
