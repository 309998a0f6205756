//! Keys of rows or of images from a text file, one per line, read as they are needed.

use crate::cancel;
use crate::error::CacheError;
use crate::format::hash::short_hash;
use crate::format::row::KEY_BYTES_MAX;
use crate::import::error::import_error;
use crate::import::lines::Lines;
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
        let mut lines = Lines::open(path, KEY_BYTES_MAX)?;
        while next_key(&mut lines)?.is_some() {
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
        Ok(Keys { path: path.into(), lines: Lines::open(path, KEY_BYTES_MAX)?, each })
    }

    /// The key of the next image.
    pub(super) fn next(&mut self) -> Result<String, CacheError> {
        let missing = || import_error(&self.path, "number of keys", "more".into(), "fewer than before");
        let key = next_key(&mut self.lines)?.ok_or_else(missing)?;
        for _ in 1..self.each {
            let other = next_key(&mut self.lines)?.unwrap_or_default();
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
    let mut lines = Lines::open(path, KEY_BYTES_MAX)?;
    (0..line).try_for_each(|_| next_key(&mut lines).map(drop))?;
    let key = next_key(&mut lines)?.unwrap_or_default();
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
    let mut lines = Lines::open(path, KEY_BYTES_MAX)?;
    let mut number = 0;
    while let Some(key) = next_key(&mut lines)? {
        let hash = short_hash(&key);
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

/// The key in the next line.
fn next_key(lines: &mut Lines) -> Result<Option<String>, CacheError> {
    let expected = || format!("1 to {KEY_BYTES_MAX} bytes of UTF-8 text");
    let Some(text) = lines.next()? else { return Ok(None) };
    let wrong = match text.len() {
        0 => "empty",
        1..=KEY_BYTES_MAX => match std::str::from_utf8(text) {
            Ok(key) => return Ok(Some(key.to_owned())),
            Err(_) => "other bytes",
        },
        _ => "longer",
    };
    Err(lines.error("key", expected(), wrong))
}
