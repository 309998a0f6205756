//! The members of a tar archive, one after the other: ustar with the extensions of GNU and POSIX for long names, perhaps of gzip.

use crate::error::{CacheError, io_error};
use crate::import::error::import_error;
use crate::import::unpacked::open_unpacked;
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
    input: BufReader<Box<dyn Read>>,
    /// Bytes that were read.
    at: u64,
}

impl TarMembers {
    pub(super) fn open(path: &Path) -> Result<TarMembers, CacheError> {
        let input = BufReader::with_capacity(1 << 20, open_unpacked(path)?);
        Ok(TarMembers { path: path.into(), input, at: 0 })
    }

    /// The next file; folders, links and the like are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Member>, CacheError> {
        let mut long_name = None;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = size_of(&header).ok_or_else(|| self.damaged("a header without a size"))?;
            let content = self.content(size, &name_of(&header))?;
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

    /// The next header; `None` at the end, which is a block of zeros, and in an empty file.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, CacheError> {
        let mut header = [0; BLOCK];
        match self.read(&mut header)? {
            BLOCK => {}
            0 if self.at == 0 => return Ok(None),
            // Every program writes them, so where they are missing, members may be as well.
            0 => return Err(self.cut_off("without the blocks of zeros that end an archive")),
            _ => return Err(self.cut_off("within the header of a member")),
        }
        if header.iter().all(|byte| *byte == 0) {
            // To the end of the file: only there, gzip compares its checksum.
            std::io::copy(&mut self.input, &mut std::io::sink()).map_err(io_error("read", &self.path))?;
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

    fn content(&mut self, size: u64, name: &str) -> Result<Vec<u8>, CacheError> {
        if size > MEMBER_BYTES_MAX {
            return Err(self.damaged(&format!("a member of {size} bytes")));
        }
        let mut content = vec![0; (size as usize).next_multiple_of(BLOCK)];
        // The last block need not be whole.
        if (self.read(&mut content)? as u64) < size {
            return Err(self.cut_off(&format!("within the member {name}")));
        }
        content.truncate(size as usize);
        Ok(content)
    }

    /// Fills `out` as far as there is something; how far that is.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, CacheError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path)(error)),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn cut_off(&self, place: &str) -> CacheError {
        let actual = format!("byte {}, {place}", self.at);
        let expected = "two blocks of zeros in front of it: the archive was cut off; get it again".to_owned();
        import_error(&self.path, "end of the archive", expected, actual)
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
