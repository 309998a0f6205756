//! The folder that an export goes to: one export at a time, and nothing of anybody else's is replaced.
//!
//! Arrays cannot say who made them, so a record beside them does: the hash of each file that an export wrote.

use crate::error::{CacheError, io_error};
use crate::files::atomic::{AtomicFile, is_temporary_name, write_atomically};
use crate::files::lock::Lock;
use crate::files::small::{list_names, read_at_most, remove_if_present};
use crate::format::names::{Name, list_ours};
use crate::write::writer::OpenMode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The arrays of an export.
pub(super) const NPY_FILES: [&str; 3] = ["tokens.npy", "labels.npy", "keys.txt"];

/// The file of an export as Parquet.
pub(super) const PARQUET_FILE: &str = "tokens.parquet";

/// The files of an export of any format.
const FILES: [&str; 4] = [NPY_FILES[0], NPY_FILES[1], NPY_FILES[2], PARQUET_FILE];

/// The ending of the files of exports in several.
const PART_ENDING: &str = ".tar";

const RECORD_FILE: &str = ".tokengrid-export.json";

/// A temporary name, so that what a killed export leaves does not block the next one.
const LOCK_FILE: &str = ".tokengrid-export-lock.tmp";

/// Size up to which the record is read, in bytes: far more than the hashes of 100,000 shards take.
const RECORD_BYTES_MAX: u64 = 64 << 20;

const MADE_BY: &str = "tokengrid";

/// What exports wrote to a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    made_by: String,
    /// By name, the hashes of what may be there: a killed export leaves some files of before and some of after.
    files: BTreeMap<String, Vec<String>>,
    /// What an export in several files, one after the other, is of: one of the same goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
}

/// A folder that belongs to this export until it is dropped.
#[derive(Debug)]
pub(super) struct ExportFolder {
    dir: PathBuf,
    /// The files of this export.
    names: Vec<String>,
    record: Record,
    lock: PathBuf,
    _held: Lock,
}

impl ExportFolder {
    /// Makes and claims the folder. Files called `names` that no export wrote are refused, unless `mode` says to replace them.
    ///
    /// # Errors
    /// [`CacheError::ExportTarget`], [`CacheError::ExportIntoCache`], [`CacheError::ExportInUse`], [`CacheError::Io`].
    pub(super) fn open(dir: &Path, names: &[&str], mode: OpenMode) -> Result<ExportFolder, CacheError> {
        fs::create_dir_all(dir).map_err(io_error("create folder", dir))?;
        let is_cache = |name: &Name| matches!(name, Name::Manifest | Name::Job | Name::Shard(..));
        if list_ours(dir)?.iter().any(is_cache) {
            return Err(CacheError::ExportIntoCache { path: dir.into() });
        }
        let lock = dir.join(LOCK_FILE);
        let held = Lock::take(&lock).map_err(|error| match error {
            CacheError::Locked { path, lock } => CacheError::ExportInUse { path, lock },
            other => other,
        })?;
        let mut folder = ExportFolder {
            dir: dir.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            record: Record::empty(),
            lock,
            _held: held,
        };
        folder.read_record(mode)?;
        if mode != OpenMode::Overwrite {
            names.iter().try_for_each(|name| folder.check_own(name))?;
        }
        folder.remove_leftovers()?;
        Ok(folder)
    }

    fn read_record(&mut self, mode: OpenMode) -> Result<(), CacheError> {
        let path = self.dir.join(RECORD_FILE);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        let text = read_at_most(&path, RECORD_BYTES_MAX)?;
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.made_by == MADE_BY => self.record = record,
            _ if mode == OpenMode::Overwrite => {}
            _ => return Err(CacheError::ExportTarget { path }),
        }
        Ok(())
    }

    /// Whether nothing is lost if the file is replaced: it is not there, is empty, or an export wrote it.
    fn check_own(&self, name: &str) -> Result<(), CacheError> {
        let path = self.dir.join(name);
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_error("look at", &path))?,
        };
        let is_own = || match self.record.files.get(name) {
            Some(hashes) => Ok(hashes.contains(&hash_of(&path)?)),
            None => Ok::<_, CacheError>(false),
        };
        if found.is_file() && (found.len() == 0 || is_own()?) {
            return Ok(());
        }
        Err(CacheError::ExportTarget { path })
    }

    /// What exports of any format left that were killed.
    fn remove_leftovers(&self) -> Result<(), CacheError> {
        let is_leftover = |name: &String| is_temporary_name(name) && name != LOCK_FILE;
        if list_names(&self.dir)?.iter().any(is_leftover) {
            let names = self.names.iter().map(String::as_str).chain(FILES).chain([RECORD_FILE]);
            // A temporary file takes the place of one that was left, and is removed when it is dropped.
            names.for_each(|name| drop(AtomicFile::create(&self.dir.join(name))));
        }
        Ok(())
    }

    /// A file of the export, to be written. The name may be a relative path.
    pub(super) fn create(&self, name: &str) -> Result<Output, CacheError> {
        let path = self.dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error("create folder", folder))?;
        }
        let file = AtomicFile::create(&path).map_err(io_error("create", &path))?;
        Ok(Output { name: name.to_owned(), path, file, hasher: blake3::Hasher::new() })
    }

    /// Continues an export of `what`, and names those of its files that are whole. What other exports in several files left, of
    /// another cache or in other parts, is removed: a reader would take their files for some of this one.
    ///
    /// # Errors
    /// [`CacheError::ExportTarget`] for a file that was changed since it was written, unless `mode` says to replace it.
    pub(super) fn resume(&mut self, what: &str, mode: OpenMode) -> Result<BTreeSet<String>, CacheError> {
        if self.record.of.as_deref() == Some(what) && mode != OpenMode::Overwrite {
            // Their hashes were compared when the folder was opened, except for files without content.
            let is_there =
                |name: &&String| self.dir.join(name).metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
            return Ok(self.record.files.keys().filter(is_there).cloned().collect());
        }
        let is_part = |name: &&String| name.ends_with(PART_ENDING);
        let parts: Vec<String> = self.record.files.keys().filter(is_part).cloned().collect();
        for name in parts {
            if mode != OpenMode::Overwrite {
                self.check_own(&name)?;
            }
            remove_if_present(&self.dir.join(&name))?;
            self.record.files.remove(&name);
        }
        self.record.of = Some(what.to_owned());
        self.write_record()?;
        Ok(BTreeSet::new())
    }

    /// Gives one whole file of a resumable export its name.
    pub(super) fn publish_one(&mut self, output: Output) -> Result<(), CacheError> {
        self.give_names(vec![output])
    }

    /// Gives whole files their names.
    pub(super) fn publish(mut self, outputs: Vec<Output>) -> Result<(), CacheError> {
        self.give_names(outputs)
    }

    fn give_names(&mut self, outputs: Vec<Output>) -> Result<(), CacheError> {
        let hashes: Vec<_> = outputs.iter().map(|output| (output.name.clone(), output.hash())).collect();
        // Before the files: an export that is killed between two of them can be run again.
        for (name, hash) in &hashes {
            self.record.files.entry(name.clone()).or_default().push(hash.clone());
        }
        self.write_record()?;
        for output in outputs {
            output.file.publish().map_err(io_error("write", &output.path))?;
        }
        for (name, hash) in hashes {
            self.record.files.insert(name, vec![hash]);
        }
        self.write_record()
    }

    fn write_record(&self) -> Result<(), CacheError> {
        let path = self.dir.join(RECORD_FILE);
        let text = serde_json::to_vec_pretty(&self.record).expect("strings by name");
        write_atomically(&path, &text).map_err(io_error("write", &path))
    }
}

impl Drop for ExportFolder {
    fn drop(&mut self) {
        // While the lock is held: who takes it next makes its file again.
        let _ = fs::remove_file(&self.lock);
    }
}

impl Record {
    fn empty() -> Record {
        Record { made_by: MADE_BY.to_owned(), files: BTreeMap::new(), of: None }
    }
}

/// A file that gets its name when all files of the export are whole, and is removed otherwise.
#[derive(Debug)]
pub(super) struct Output {
    name: String,
    path: PathBuf,
    file: AtomicFile,
    hasher: blake3::Hasher,
}

impl Output {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.write_all(bytes).map_err(io_error("write", &self.path))
    }

    pub(super) fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hash_of(path: &Path) -> Result<String, CacheError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(io_error("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
