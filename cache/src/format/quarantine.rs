//! The list of inputs without rows, `quarantine.jsonl`: one JSON object per line, in the order of the source.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::format::manifest::{Manifest, QuarantineEntry};
use crate::format::names::QUARANTINE_FILE;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use tokengrid_store::{Bucket, Place};

/// A longer line is refused. Only one line is in memory at a time.
const LINE_BYTES_MAX: u64 = 512 << 20;

/// An input without rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Number of the image in the source's listing.
    pub index: usize,
    /// The source's own name of the image.
    pub key: String,
    /// Where it failed: `read`, `decode`, ...
    pub stage: String,
    /// Why.
    pub reason: String,
}

impl QuarantineRecord {
    /// The record's line of the list.
    pub(crate) fn to_line(&self) -> String {
        // Strings and numbers: serializing them cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The list of these records.
pub(crate) fn quarantine_list(records: &[QuarantineRecord]) -> String {
    records.iter().map(QuarantineRecord::to_line).collect()
}

/// Reads the list of a cache one record at a time, however long it is.
///
/// Whether the list is the one that the manifest vouches for is only known at its end: an error may follow records that
/// were fine. After an error there is no further item.
///
/// # Errors
/// Items are [`CacheError::Import`] when the list is not the manifest's; [`CacheError::ManifestSyntax`] and
/// [`CacheError::QuarantineOrder`] when it is, but is not a valid list; [`CacheError::Io`]; [`CacheError::Cancelled`].
pub struct QuarantineReader {
    path: PathBuf,
    /// No more of the file than the manifest says, and a byte that should not be there.
    file: BufReader<std::io::Take<Box<dyn Read + Send>>>,
    hasher: blake3::Hasher,
    expected: QuarantineEntry,
    /// Images that the source has.
    images: usize,
    /// The smallest number that the next record may have.
    next_index: usize,
    num_records: usize,
    line: Vec<u8>,
    is_over: bool,
}

impl QuarantineReader {
    /// Opens the list of the cache in `dir`, a folder or a URL.
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::Store`].
    pub fn open(dir: &Path, manifest: &Manifest) -> Result<QuarantineReader, CacheError> {
        let (path, expected) = (dir.join(QUARANTINE_FILE), manifest.quarantine.clone());
        let bytes_max = expected.bytes.saturating_add(1);
        let file: Box<dyn Read + Send> = match Place::parse(dir)? {
            None => Box::new(File::open(&path).map_err(io_error("open", &path))?),
            Some(place) => {
                let key = place.join(QUARANTINE_FILE);
                Box::new(Cursor::new(Bucket::of(&place)?.fetch_all(key.key(), bytes_max)?.wait()?))
            }
        };
        Ok(QuarantineReader {
            file: BufReader::new(file.take(bytes_max)),
            path,
            hasher: blake3::Hasher::new(),
            images: manifest.source.images,
            expected,
            next_index: 0,
            num_records: 0,
            line: Vec::new(),
            is_over: false,
        })
    }

    /// The next record; `None` at the end.
    fn read_record(&mut self) -> Result<Option<QuarantineRecord>, CacheError> {
        cancel::check()?;
        loop {
            if self.read_line()? == 0 {
                return self.check_end().map(|()| None);
            }
            let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            if text.is_empty() {
                continue;
            }
            let record = match serde_json::from_slice::<QuarantineRecord>(text) {
                Ok(record) => record,
                // An altered list may have any text: that it was altered is what matters.
                Err(source) => {
                    self.check_rest()?;
                    return Err(CacheError::ManifestSyntax { path: self.path.clone(), source });
                }
            };
            if !(self.next_index..self.images).contains(&record.index) {
                self.check_rest()?;
                let (path, index) = (self.path.clone(), record.index);
                return Err(CacheError::QuarantineOrder { path, index, first: self.next_index, end: self.images });
            }
            self.next_index = record.index + 1;
            self.num_records += 1;
            return Ok(Some(record));
        }
    }

    /// Reads a line, and returns its length.
    fn read_line(&mut self) -> Result<usize, CacheError> {
        self.line.clear();
        let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
        let bytes = read.map_err(io_error("read", &self.path))?;
        self.hasher.update(&self.line);
        if bytes as u64 == LINE_BYTES_MAX {
            self.check_rest()?;
            return Err(CacheError::TooLarge {
                path: self.path.clone(),
                bytes: bytes as u64,
                bytes_max: LINE_BYTES_MAX,
            });
        }
        Ok(bytes)
    }

    /// Reads the rest of the list and compares its checksum.
    fn check_rest(&mut self) -> Result<(), CacheError> {
        loop {
            let bytes = self.file.fill_buf().map_err(io_error("read", &self.path))?;
            if bytes.is_empty() {
                return self.check_hash();
            }
            self.hasher.update(bytes);
            let length = bytes.len();
            self.file.consume(length);
        }
    }

    fn check_end(&self) -> Result<(), CacheError> {
        self.check_hash()?;
        let (expected, actual) = (self.expected.images, self.num_records);
        if expected == actual { Ok(()) } else { Err(self.altered("number of records", expected, actual)) }
    }

    fn check_hash(&self) -> Result<(), CacheError> {
        let actual = self.hasher.finalize().to_hex().to_string();
        if actual == self.expected.blake3 {
            return Ok(());
        }
        Err(self.altered("checksum", &self.expected.blake3, actual))
    }

    fn altered(&self, what: &'static str, expected: impl ToString, actual: impl ToString) -> CacheError {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        CacheError::Import { path: self.path.clone(), what, expected, actual }
    }
}

impl Iterator for QuarantineReader {
    type Item = Result<QuarantineRecord, CacheError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let found = self.read_record().transpose();
        self.is_over = !matches!(found, Some(Ok(_)));
        found
    }
}
