//! Tar archives that are the same bytes at any time: no dates, no users.

use crate::error::CacheError;
use crate::export::folder::Output;

const BLOCK: usize = 512;

/// The longest name that a header holds by itself, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Appends a file. A long name comes in front, in a record of POSIX.
pub(super) fn put_file(out: &mut Output, name: &str, content: &[u8]) -> Result<(), CacheError> {
    if name.len() > NAME_BYTES_MAX {
        let record = path_record(name);
        put_member(out, "PaxHeaders/path", b'x', record.as_bytes())?;
    }
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    put_member(out, &name[..end.unwrap_or(0)], b'0', content)
}

/// Ends the archive.
pub(super) fn put_end(out: &mut Output) -> Result<(), CacheError> {
    out.put(&[0; 2 * BLOCK])
}

fn put_member(out: &mut Output, name: &str, kind: u8, content: &[u8]) -> Result<(), CacheError> {
    out.put(&header(name, kind, content.len()))?;
    out.put(content)?;
    out.put(&[0; BLOCK][..content.len().next_multiple_of(BLOCK) - content.len()])
}

/// A header of ustar.
fn header(name: &str, kind: u8, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut set = |start: usize, text: &[u8]| header[start..start + text.len()].copy_from_slice(text);
    set(0, name.as_bytes());
    set(100, b"0000644\x000000000\x000000000\x00");
    set(124, format!("{size:011o}\x0000000000000\x00").as_bytes());
    // The checksum counts its own field as spaces.
    set(148, b"        ");
    set(156, &[kind]);
    set(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\x00 ").as_bytes());
    header
}

/// `<length> path=<name>\n`, of which the length counts itself.
fn path_record(name: &str) -> String {
    let rest = format!(" path={name}\n");
    let mut length = rest.len();
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        for length in [1, 80, 85, 90, 91, 92, 93, 980, 990, 991, 992] {
            let record = path_record(&"x".repeat(length));
            assert_eq!(record.split_once(' ').unwrap().0.parse(), Ok(record.len()), "{length}");
        }
    }
}
