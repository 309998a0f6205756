//! Keys that two images of an input have.

use crate::error::CacheError;
use crate::format::hash::short_hash;
use crate::import::error::import_error;
use std::path::Path;

/// The keys of an input, by eight bytes of a hash each.
#[derive(Default)]
pub(super) struct SeenKeys(Vec<u64>);

impl SeenKeys {
    pub(super) fn add(&mut self, key: &str) {
        self.0.push(short_hash(key));
    }

    /// A hash that two keys have, where there is one.
    pub(super) fn repeated(mut self) -> Option<u64> {
        self.0.sort_unstable();
        self.0.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

/// The error for `row` of a file, whose key the row at the place `first` has as well.
pub(super) fn repeated_row(path: &Path, first: &str, key: &str, row: usize) -> CacheError {
    let expected = format!(
        "another key than that of {first}: images have keys of their own (for several rows of an image, one after the \
         other, give --views)"
    );
    import_error(path, "key", expected, format!("`{key}` (row {row})"))
}

/// Finds the two places of a key, given its hash.
pub(super) struct TwoPlaces<P> {
    hash: u64,
    /// Keys of this hash, with the first place of each: one, unless other keys have the same hash.
    first: Vec<(String, P)>,
}

impl<P> TwoPlaces<P> {
    pub(super) fn of(hash: u64) -> TwoPlaces<P> {
        TwoPlaces { hash, first: Vec::new() }
    }

    /// Takes the next key; the place where it was before, if it was.
    pub(super) fn take(&mut self, key: &str, place: impl FnOnce() -> P) -> Option<&P> {
        if short_hash(key) != self.hash {
            return None;
        }
        match self.first.iter().position(|(other, _)| other == key) {
            Some(known) => Some(&self.first[known].1),
            None => {
                self.first.push((key.to_owned(), place()));
                None
            }
        }
    }
}
