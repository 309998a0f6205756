//! Keys of many images in little memory, and file names as keys.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Keys by position, back to back in one string.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    text: String,
    ends: Vec<usize>,
    /// Relative paths of the few files whose key is not their path.
    odd_paths: HashMap<usize, PathBuf>,
}

impl KeyTable {
    pub(super) fn push(&mut self, key: &str, odd_path: Option<PathBuf>) {
        if let Some(path) = odd_path {
            self.odd_paths.insert(self.ends.len(), path);
        }
        self.text.push_str(key);
        self.ends.push(self.text.len());
    }

    pub(super) fn key(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    /// The file's path relative to the root.
    pub(super) fn relative_path(&self, index: usize) -> &Path {
        self.odd_paths.get(&index).map_or_else(|| Path::new(self.key(index)), PathBuf::as_path)
    }
}

/// A file name as a part of a key: as it is, or with the bytes that are not UTF-8 as `%XX`. The second is true when the
/// part is not the name itself.
pub(super) fn key_part(name: &OsStr) -> (String, bool) {
    if let Some(name) = name.to_str() {
        return (name.to_owned(), false);
    }
    let mut part = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        part.push_str(chunk.valid());
        part.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    (part, true)
}
