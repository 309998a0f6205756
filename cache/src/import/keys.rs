//! Keys of rows or of images from a text file, one per line, read as they are needed.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::format::row::KEY_BYTES_MAX;
use crate::import::error::import_error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A key for every image.
pub(super) struct Keys {
    path: PathBuf,
    lines: Lines,
    /// Lines of an image: its views have one each, or one together.
    each: usize,
}

impl Keys {
    /// Opens a file, and looks at all of it: every image needs a key of its own.
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::Import`] naming the line.
    pub(super) fn open(path: &Path, images: usize, views: usize) -> Result<Keys, CacheError> {
        let mut found = 0;
        let mut lines = Lines::open(path)?;
        while lines.next()?.is_some() {
            found += 1;
            cancel::check()?;
        }
        let rows = images * views;
        if found != images && found != rows {
            let expected = if views == 1 { format!("{images}") } else { format!("{images} images or {rows} rows") };
            return Err(import_error(path, "number of keys", expected, found));
        }
        let each = if found == images { 1 } else { views };
        refuse_repeated(path, found, each as u64)?;
        Ok(Keys { path: path.into(), lines: Lines::open(path)?, each })
    }

    /// The key of the next image.
    pub(super) fn next(&mut self) -> Result<String, CacheError> {
        let missing = || import_error(&self.path, "number of keys", "more".into(), "fewer than before");
        let key = self.lines.next()?.ok_or_else(missing)?;
        for _ in 1..self.each {
            let other = self.lines.next()?.unwrap_or_default();
            if other != key {
                return Err(import_error(&self.path, "key of a later view", key, other));
            }
        }
        Ok(key)
    }
}

/// Hashes of keys that are held at a time: 64 MiB. More keys are looked through in several passes.
const HASHES_MAX: usize = 4 << 20;

/// Names the first of `count` lines whose key another image has already.
fn refuse_repeated(path: &Path, count: usize, each: u64) -> Result<(), CacheError> {
    let passes = count.div_ceil(HASHES_MAX).max(1) as u64;
    let mut repeated = None;
    for pass in 0..passes {
        let of_pass = repeated_of_pass(path, count, each, |hash| hash % passes == pass)?;
        repeated = [repeated, of_pass].into_iter().flatten().min();
    }
    let Some((line, earlier)) = repeated else { return Ok(()) };
    let mut lines = Lines::open(path)?;
    (0..line).try_for_each(|_| lines.next().map(drop))?;
    let key = lines.next()?.unwrap_or_default();
    let expected = format!("a key of its own for every image; line {} has it already", earlier + 1);
    Err(import_error(path, "key", expected, format!("`{key}` in line {}", line + 1)))
}

/// Of the lines whose hashes are of a pass, the first with the key of an earlier image, and that image's line.
fn repeated_of_pass(
    path: &Path,
    count: usize,
    each: u64,
    is_of_pass: impl Fn(u64) -> bool,
) -> Result<Option<(u64, u64)>, CacheError> {
    let mut hashes = Vec::with_capacity(count.min(HASHES_MAX + HASHES_MAX / 64));
    let mut lines = Lines::open(path)?;
    let mut number = 0;
    while let Some(key) = lines.next()? {
        let hash = blake3::hash(key.as_bytes());
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        let hash = u64::from_le_bytes(words[0]);
        if is_of_pass(hash) {
            hashes.push((hash, number));
        }
        number += 1;
        cancel::check()?;
    }
    hashes.sort_unstable();
    let is_repeated = |pair: &&[(u64, u64)]| pair[0].0 == pair[1].0 && pair[0].1 / each != pair[1].1 / each;
    Ok(hashes.windows(2).filter(is_repeated).map(|pair| (pair[1].1, pair[0].1)).min())
}

/// Lines of text, none of which is longer than a key may be.
struct Lines {
    path: PathBuf,
    input: BufReader<File>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        Ok(Lines { path: path.into(), input: BufReader::with_capacity(1 << 16, file), number: 0 })
    }

    fn next(&mut self) -> Result<Option<String>, CacheError> {
        const LINE_BYTES_MAX: usize = KEY_BYTES_MAX + 2;
        let mut line = Vec::new();
        let bounded = self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let read = { bounded }.read_until(b'\n', &mut line).map_err(io_error("read", &self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // Editors put a byte order mark in front of the first line, and joined files have them in front of others.
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let expected = || format!("1 to {KEY_BYTES_MAX} bytes of UTF-8 text (line {})", self.number);
        if text.is_empty() || text.len() > KEY_BYTES_MAX {
            let actual = if text.is_empty() { "empty" } else { "longer" };
            return Err(import_error(&self.path, "key", expected(), actual));
        }
        let key = std::str::from_utf8(text).map_err(|_| import_error(&self.path, "key", expected(), "other bytes"))?;
        Ok(Some(key.to_owned()))
    }
}
