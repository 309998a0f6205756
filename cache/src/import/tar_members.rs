//! The members of a tar archive, one after the other: ustar with the extensions of GNU and POSIX for long names.

use crate::error::{CacheError, io_error};
use crate::import::error::import_error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const BLOCK: usize = 512;

/// The largest member that is read: 8 million tokens of 64 bits.
const MEMBER_BYTES_MAX: u64 = 64 << 20;

/// A file in an archive.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Reads an archive from its beginning to its end.
pub(super) struct TarMembers {
    path: PathBuf,
    input: BufReader<File>,
}

impl TarMembers {
    pub(super) fn open(path: &Path) -> Result<TarMembers, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        Ok(TarMembers { path: path.into(), input: BufReader::with_capacity(1 << 20, file) })
    }

    /// The next file; folders, links and the like are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Member>, CacheError> {
        let mut long_name = None;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let content = self.content(size_of(&header).ok_or_else(|| self.damaged("no size"))?)?;
            match header[156] {
                b'0' | 0 => {
                    let name = long_name.unwrap_or_else(|| name_of(&header));
                    return Ok(Some(Member { name, content }));
                }
                b'L' => long_name = Some(text_of(&content)),
                b'x' => long_name = pax_path(&content).or(long_name),
                _ => long_name = None,
            }
        }
    }

    /// The next header; `None` at the end, which is a block of zeros or that of the file.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, CacheError> {
        let mut header = [0; BLOCK];
        match self.input.read_exact(&mut header) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(io_error("read", &self.path))?,
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as spaces.
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
        if octal(&header[148..156]) == Some(sum - own + 8 * u64::from(b' ')) {
            return Ok(Some(header));
        }
        Err(self.damaged("a header with another checksum"))
    }

    fn content(&mut self, size: u64) -> Result<Vec<u8>, CacheError> {
        if size > MEMBER_BYTES_MAX {
            return Err(self.damaged(&format!("a member of {size} bytes")));
        }
        let mut content = vec![0; (size as usize).next_multiple_of(BLOCK)];
        self.input.read_exact(&mut content).map_err(io_error("read", &self.path))?;
        content.truncate(size as usize);
        Ok(content)
    }

    fn damaged(&self, what: &str) -> CacheError {
        let expected = format!("tar members of at most {MEMBER_BYTES_MAX} bytes");
        import_error(&self.path, "archive", expected, what)
    }
}

fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn name_of(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text_of(&header[..100]), text_of(&header[345..500]));
    let has_prefix = &header[257..262] == b"ustar" && header[262] == 0 && !prefix.is_empty();
    if has_prefix { format!("{prefix}/{name}") } else { name }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// The size; GNU writes large ones in binary.
fn size_of(header: &[u8; BLOCK]) -> Option<u64> {
    let field = &header[124..136];
    if field[0] != 0x80 {
        return octal(field);
    }
    field[4..].iter().try_fold(0u64, |size, byte| size.checked_mul(256)?.checked_add(u64::from(*byte)))
}

/// The path of POSIX's records, `<length> path=<value>\n`.
fn pax_path(records: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(records).ok()?;
    text.lines().find_map(|line| Some(line.split_once(" path=")?.1.to_owned()))
}
