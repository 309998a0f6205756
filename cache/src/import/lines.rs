//! Lines of a text file, read one at a time, none of them longer than a limit.

use crate::error::{CacheError, io_error};
use crate::import::error::import_error;
use crate::import::unpacked::open_unpacked;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// An open text file.
pub(super) struct Lines {
    path: PathBuf,
    input: BufReader<Box<dyn Read>>,
    bytes_max: usize,
    line: Vec<u8>,
    /// The line that was read last, counted from 1.
    pub(super) number: usize,
}

impl Lines {
    /// Opens a file, perhaps of gzip, whose lines have at most `bytes_max` bytes, their ends not counted.
    pub(super) fn open(path: &Path, bytes_max: usize) -> Result<Lines, CacheError> {
        let input = BufReader::with_capacity(1 << 18, open_unpacked(path)?);
        Ok(Lines { path: path.into(), input, bytes_max, line: vec![], number: 0 })
    }

    /// The next line without its end and without a byte order mark; `None` at the end of the file. Of a line that is too long, its
    /// first `bytes_max + 1` bytes.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, CacheError> {
        const ENDS_AND_MARK: u64 = 5;
        self.line.clear();
        let bounded = self.input.by_ref().take(self.bytes_max as u64 + 1 + ENDS_AND_MARK);
        let read = { bounded }.read_until(b'\n', &mut self.line).map_err(io_error("read", &self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // Editors put a byte order mark in front of the first line, and joined files have them in front of others.
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        Ok(Some(&text[..text.len().min(self.bytes_max + 1)]))
    }

    /// An error about the line that was read last.
    pub(super) fn error(&self, what: &'static str, expected: impl Display, actual: impl Display) -> CacheError {
        import_error(&self.path, what, format!("{expected} (line {})", self.number), actual)
    }
}
