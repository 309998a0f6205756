//! Images that are objects, or files, of their own.

use crate::source::MAX_FILE_BYTES;
use crate::source::files::{read_file, too_large};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokengrid_store::{Bucket, Fetch};

/// Where an image lies.
#[derive(Debug)]
pub(in crate::source) enum Where {
    /// An object of a bucket, by the bucket's number, with its size if it was listed.
    Object { bucket: u16, key: Box<str>, bytes: Option<u64> },
    /// A local file that a list names beside URLs.
    File(PathBuf),
}

/// Images by the number that is the position of their rows.
#[derive(Debug, Default)]
pub(in crate::source) struct Objects {
    buckets: Vec<Bucket>,
    images: Vec<Where>,
}

impl Objects {
    pub(super) fn new(buckets: Vec<Bucket>, images: Vec<Where>) -> Objects {
        Objects { buckets, images }
    }

    /// Begins to read an image; returns the bytes that it will take, if they are known. `None` for a local or too large file.
    pub(in crate::source) fn fetch(&self, number: u64) -> Option<(Fetch, Option<u64>)> {
        let Where::Object { bucket, key, bytes } = &self.images[number as usize] else { return None };
        let bucket = &self.buckets[usize::from(*bucket)];
        let is_large = bytes.is_some_and(|bytes| bytes > MAX_FILE_BYTES);
        let fetch = match bytes {
            Some(bytes) if !is_large => bucket.fetch(key, 0..*bytes, None),
            Some(_) => return None,
            None => bucket.fetch_all(key, MAX_FILE_BYTES),
        };
        Some((fetch.ok()?, *bytes))
    }

    /// Replaces what `into` holds by the image; `before` is called with its length before memory is taken for it.
    pub(in crate::source) fn read(
        &self,
        number: u64,
        into: &mut Vec<u8>,
        before: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let (bucket, key, bytes) = match &self.images[number as usize] {
            Where::File(path) => return read_file(path, into, before),
            Where::Object { bucket, key, bytes } => (&self.buckets[usize::from(*bucket)], key, bytes),
        };
        let fetch = match bytes {
            Some(bytes) if *bytes > MAX_FILE_BYTES => return Err(too_large()),
            Some(bytes) => {
                before(*bytes);
                bucket.fetch(key, 0..*bytes, None)?
            }
            None => bucket.fetch_all(key, MAX_FILE_BYTES)?,
        };
        into.extend_from_slice(&fetch.wait()?);
        Ok(())
    }
}

/// Images that are read ahead of their requests, by row.
#[derive(Debug, Default)]
pub(in crate::source) struct Ahead {
    fetches: Mutex<HashMap<usize, Fetch>>,
}

impl Ahead {
    pub(in crate::source) fn put(&self, row: usize, fetch: Fetch) {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).insert(row, fetch);
    }

    pub(in crate::source) fn take(&self, row: usize) -> Option<Fetch> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&row)
    }

    pub(in crate::source) fn clear(&self) {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
