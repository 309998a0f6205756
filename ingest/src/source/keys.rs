//! Keys of many images in little memory, and names of files and members as keys.

use std::cmp::Ordering;
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

    /// An empty table with room for so many of these keys.
    pub(super) fn with_room_for(&self, keys: usize) -> KeyTable {
        let bytes = if keys == 0 { 0 } else { self.text.len() };
        KeyTable { text: String::with_capacity(bytes), ends: Vec::with_capacity(keys), odd_paths: HashMap::new() }
    }

    /// Adds the keys of `other`, which have no odd paths, after these.
    pub(super) fn append(&mut self, other: &KeyTable) {
        let start = self.text.len();
        self.text.push_str(&other.text);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    pub(super) fn odd_path(&self, index: usize) -> Option<&PathBuf> {
        self.odd_paths.get(&index)
    }

    /// The file's path relative to the root.
    pub(super) fn relative_path(&self, index: usize) -> &Path {
        self.odd_paths.get(&index).map_or_else(|| Path::new(self.key(index)), PathBuf::as_path)
    }
}

/// Keys part by part, each compared as bytes: what a walk through sorted folders gives. The same as comparing whole keys
/// with a `/` that sorts before everything else.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}

/// The last part of a key.
pub(super) fn file_name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// A file name as a part of a key: unchanged, or with control characters and bytes that are not UTF-8 as `%XX`. The second
/// is true when the part is not the name itself.
pub(super) fn key_part(name: &OsStr) -> (String, bool) {
    let mut part = String::new();
    let odd = escape(name.as_encoded_bytes(), &mut part);
    (part, odd)
}

/// A file's name as it appears in the keys of its damaged positions.
pub(super) fn file_key(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| key_part(name).0)
}

/// What the name of a member of a container says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberName {
    /// A part begins with a dot or is a system's (`__MACOSX`); folders pass such files over, too.
    Hidden,
    /// No part is left: as in `./`.
    Empty,
    /// The name as a key.
    Key(String),
}

/// A member's name as a key: `/` between the parts, nothing in front, no `.`, no empty part. `..` leads nowhere here, and
/// becomes `%2E%2E`.
pub(super) fn member_name(name: &[u8]) -> MemberName {
    let mut key = String::with_capacity(name.len());
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => continue,
            _ if !key.is_empty() => key.push('/'),
            _ => {}
        }
        match part {
            b".." => key.push_str("%2E%2E"),
            _ if is_hidden(part) => return MemberName::Hidden,
            _ => {
                escape(part, &mut key);
            }
        }
    }
    if key.is_empty() { MemberName::Empty } else { MemberName::Key(key) }
}

/// Folders and files that systems add to those of users, in lower case: file systems, NAS devices (Synology, QNAP,
/// NetApp), macOS, Windows, Python.
const SYSTEM_NAMES: [&str; 21] = [
    "lost+found",
    "@eadir",
    "@tmp",
    "@sharebin",
    "@recycle",
    "@recently-snapshot",
    "@__thumb",
    "@synoeastream",
    "@synoresource",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "__macosx",
    "$recycle.bin",
    "system volume information",
    "found.000",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "desktop.ini",
    "__pycache__",
];

/// What no user put there to be read: hidden files, and what systems leave in folders.
pub(super) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".") || SYSTEM_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Appends `bytes`, with what has no place in a key as `%XX`; true when there was any.
fn escape(bytes: &[u8], into: &mut String) -> bool {
    let mut odd = false;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii_control() {
                odd = true;
                push_escaped(character as u8, into);
            } else {
                into.push(character);
            }
        }
        odd |= !chunk.invalid().is_empty();
        chunk.invalid().iter().for_each(|&byte| push_escaped(byte, into));
    }
    odd
}

fn push_escaped(byte: u8, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    into.push('%');
    into.push(DIGITS[usize::from(byte >> 4)] as char);
    into.push(DIGITS[usize::from(byte & 15)] as char);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members_become_keys_inside_the_root() {
        let key = |name: &[u8]| member_name(name);
        let plain = |key: &str| MemberName::Key(key.to_owned());
        assert_eq!(key(b"./n01//a.jpg"), plain("n01/a.jpg"));
        assert_eq!(key(b"/etc/passwd.png"), plain("etc/passwd.png"));
        assert_eq!(key(b"../../a.jpg"), plain("%2E%2E/%2E%2E/a.jpg"));
        assert_eq!(key(b"a\n\0\xFFb.jpg"), plain("a%0A%00%FFb.jpg"));
        assert_eq!(key("\u{e9}.jpg".as_bytes()), plain("\u{e9}.jpg"));
        for hidden in
            [&b"._a.jpg"[..], b"n01/.DS_Store", b"__MACOSX/n01/a.jpg", b"./.git/a.jpg", b"..a.jpg", b"@eaDir/a.jpg"]
        {
            assert_eq!(key(hidden), MemberName::Hidden);
        }
        for empty in [&b""[..], b"./", b"/"] {
            assert_eq!(key(empty), MemberName::Empty);
        }
    }

    #[test]
    fn keys_sort_folder_by_folder() {
        let mut keys = ["n01-x/a", "n01/b", "n01/a", "n01", "n02", "n01/a/c"];
        keys.sort_by(|a, b| compare(a, b));
        assert_eq!(keys, ["n01", "n01/a", "n01/a/c", "n01/b", "n01-x/a", "n02"]);
    }
}
