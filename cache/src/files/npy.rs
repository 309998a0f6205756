//! `.npy` files of integers, streamed. The format: magic, version, header length, a Python dict as text, raw values.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{CacheError, io_error};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// A bound on what is read into memory for a header; numpy's own limit is 10,000.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// An array of integers that is read from its beginning to its end.
pub(crate) struct NpyReader {
    path: PathBuf,
    input: BufReader<File>,
    pub(crate) shape: Vec<usize>,
    width: usize,
    signed: bool,
    big_endian: bool,
    buffer: Vec<u8>,
}

impl NpyReader {
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::NotNpy`] for anything but integers of 1 to 8 bytes in C order.
    pub(crate) fn open(path: &Path) -> Result<NpyReader, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
        let mut input = BufReader::with_capacity(1 << 20, file);
        let refuse = |what: &str| CacheError::NotNpy { path: path.into(), what: what.to_owned() };
        let text = read_header(&mut input).map_err(|what| refuse(&what))?;
        let descr = field(&text, "descr").ok_or_else(|| refuse("its header has no descr"))?;
        let (order, kind, width) = parse_descr(descr).ok_or_else(|| refuse(&format!("its type is {descr}")))?;
        if field(&text, "fortran_order") != Some("False") {
            return Err(refuse("it is in Fortran order"));
        }
        let shape = field(&text, "shape").and_then(parse_shape).ok_or_else(|| refuse("its header has no shape"))?;
        let values = shape.iter().try_fold(width as u64, |size, side| size.checked_mul(*side as u64));
        let header_bytes = text.len() as u64 + if text.len() > 0xFFFF { 12 } else { 10 };
        if values.is_none_or(|values| bytes < header_bytes || bytes - header_bytes < values) {
            return Err(refuse(&format!("it has {bytes} bytes, too few for its shape {shape:?}")));
        }
        let (signed, big_endian) = (kind == 'i', order == '>');
        Ok(NpyReader { path: path.into(), input, shape, width, signed, big_endian, buffer: Vec::new() })
    }

    /// Reads the next `out.len()` values.
    ///
    /// # Errors
    /// [`CacheError::Io`], also at the end of the file.
    pub(crate) fn read(&mut self, out: &mut [i64]) -> Result<(), CacheError> {
        self.buffer.resize(out.len() * self.width, 0);
        self.input.read_exact(&mut self.buffer).map_err(io_error("read", &self.path))?;
        for (value, bytes) in out.iter_mut().zip(self.buffer.chunks_exact(self.width)) {
            let mut wide = [0u8; 8];
            for (slot, byte) in wide.iter_mut().zip(bytes) {
                *slot = *byte;
            }
            if self.big_endian {
                wide[..self.width].reverse();
            }
            let unused = 64 - 8 * self.width as u32;
            let raw = u64::from_le_bytes(wide);
            *value = match self.signed {
                true => ((raw << unused) as i64) >> unused,
                // What does not fit is no token and no label: it is refused as the largest number.
                false => i64::try_from(raw).unwrap_or(i64::MAX),
            };
        }
        Ok(())
    }
}

fn read_header(input: &mut impl Read) -> Result<String, String> {
    let truncated = |_| "it ends within its header".to_owned();
    let mut start = [0; 8];
    input.read_exact(&mut start).map_err(truncated)?;
    if &start[..6] != MAGIC {
        return Err("it does not begin with the magic number of .npy".to_owned());
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            input.read_exact(&mut length).map_err(truncated)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            input.read_exact(&mut length).map_err(truncated)?;
            u32::from_le_bytes(length) as usize
        }
        version => return Err(format!("its format version is {version}")),
    };
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header has {length} bytes"));
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).map_err(truncated)?;
    String::from_utf8(text).map_err(|_| "its header is no text".to_owned())
}

/// The value of a key of the header's dict, as text.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = match rest.chars().next()? {
        '(' => rest.find(')')? + 1,
        _ => rest.find([',', '}'])?,
    };
    Some(rest[..end].trim())
}

/// Byte order, kind and width of `'<i4'`.
fn parse_descr(descr: &str) -> Option<(char, char, usize)> {
    let mut chars = descr.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let (order, kind) = (chars.next()?, chars.next()?);
    let width: usize = chars.as_str().parse().ok()?;
    (matches!(order, '<' | '>' | '|') && matches!(kind, 'i' | 'u') && matches!(width, 1 | 2 | 4 | 8))
        .then_some((order, kind, width))
}

/// `(3, 4)`, `(3,)`, `()`.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    inner.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect()
}

/// Writes the header of an array, version 1.0, padded so that the values are aligned to 64 bytes.
pub(crate) fn write_header(out: &mut impl Write, descr: &str, shape: &[usize]) -> std::io::Result<()> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let sides = if shape.len() == 1 { sides.trim_end() } else { sides.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    let padded = (text.len() + 11).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', padded - 1 - text.len()));
    text.push('\n');
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    // Shapes of a few sides: always below 2^16.
    out.write_all(&(text.len() as u16).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_header(&mut bytes, descr, shape).unwrap();
        assert_eq!(bytes.len() % 64, 0);
        [bytes, values.to_vec()].concat()
    }

    #[test]
    fn every_integer_type_is_read() {
        for (descr, values, expected) in [
            ("<i2", vec![1, 2, 0xFF, 0xFF], [0x201, -1]),
            (">i2", vec![1, 2, 0xFF, 0xFE], [0x102, -2]),
            ("<u2", vec![1, 2, 0xFF, 0xFF], [0x201, 0xFFFF]),
            ("|u1", vec![7, 255], [7, 255]),
            ("|i1", vec![7, 255], [7, -1]),
            ("<u8", [5u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(), [5, i64::MAX]),
            (">i4", [9i32.to_be_bytes(), i32::MIN.to_be_bytes()].concat(), [9, i64::from(i32::MIN)]),
        ] {
            let file = file(&npy(descr, &[2, 1], &values));
            let mut reader = NpyReader::open(file.path()).unwrap();
            let mut out = [0; 2];
            reader.read(&mut out).unwrap();
            assert_eq!((reader.shape, out), (vec![2, 1], expected), "{descr}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let good = npy("<i4", &[2], &[0; 8]);
        assert!(NpyReader::open(file(&good).path()).is_ok());
        let fortran = String::from_utf8_lossy(&good[8..]).replace("False", "True ");
        let huge = npy("<i8", &[usize::MAX, usize::MAX], &[0; 8]);
        for (bytes, expected) in [
            (b"PK".to_vec(), "ends within its header"),
            (b"not an array".to_vec(), "magic number"),
            (good[..40].to_vec(), "ends within its header"),
            (good[..good.len() - 1].to_vec(), "too few for its shape [2]"),
            (npy("<f4", &[2], &[0; 8]), "its type is '<f4'"),
            (npy("<i3", &[2], &[0; 8]), "its type is '<i3'"),
            ([&good[..8], fortran.as_bytes()].concat(), "Fortran order"),
            (huge, "too few for its shape"),
            ([b"\x93NUMPY\x09\0".as_slice(), &good[8..]].concat(), "format version is 9"),
        ] {
            let error = NpyReader::open(file(&bytes).path()).err().unwrap().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
