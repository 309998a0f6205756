//! `.npy` files of integers, streamed.

use crate::error::{CacheError, io_error};
use crate::npy::{Dtype, Header};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// An array of integers that is read from its beginning to its end.
pub(crate) struct NpyReader {
    path: PathBuf,
    input: Box<dyn Read>,
    pub(crate) shape: Vec<usize>,
    width: usize,
    signed: bool,
    big_endian: bool,
    buffer: Vec<u8>,
}

impl NpyReader {
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::NoRows`] for a file of no bytes; [`CacheError::NotNpy`] for anything but integers of 1 to 8 bytes
    /// in C order.
    pub(crate) fn open(path: &Path) -> Result<NpyReader, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
        if bytes == 0 {
            return Err(CacheError::NoRows { path: path.into(), what: "it is an empty file".into() });
        }
        Self::of(path, Box::new(BufReader::with_capacity(1 << 20, file)), bytes)
    }

    /// An array of `bytes` bytes, header included, that is not a file of its own; `path` names it in errors.
    ///
    /// # Errors
    /// As [`NpyReader::open`].
    pub(crate) fn of(path: &Path, mut input: Box<dyn Read>, bytes: u64) -> Result<NpyReader, CacheError> {
        let refuse = |what: &str| CacheError::NotNpy { path: path.into(), what: what.to_owned() };
        let header = Header::read(&mut input).map_err(|what| refuse(&what))?;
        let is_integer = |dtype: &Dtype| matches!(dtype.kind, 'i' | 'u') && matches!(dtype.width, 1 | 2 | 4 | 8);
        let dtype = header.dtype().filter(is_integer);
        let Dtype { order, kind, width } = dtype.ok_or_else(|| refuse(&format!("its type is {}", header.descr)))?;
        if header.fortran_order {
            return Err(refuse("it is in Fortran order"));
        }
        let (there, needed) = (bytes.saturating_sub(header.bytes as u64), header.element_bytes(width));
        if needed.is_none_or(|needed| there < needed as u64) {
            return Err(refuse(&format!("it has {bytes} bytes, too few for its shape {:?}", header.shape)));
        }
        let (signed, big_endian) = (kind == 'i', order == '>');
        Ok(NpyReader { path: path.into(), input, shape: header.shape, width, signed, big_endian, buffer: Vec::new() })
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
                // What does not fit is neither a token nor a label: it is refused as the largest number.
                false => i64::try_from(raw).unwrap_or(i64::MAX),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Header::write(&mut bytes, descr, shape).unwrap();
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
            (npy("<f4", &[2], &[0; 8]), "its type is <f4"),
            (npy("<i3", &[2], &[0; 8]), "its type is <i3"),
            ([&good[..8], fortran.as_bytes()].concat(), "Fortran order"),
            (huge, "too few for its shape"),
            ([b"\x93NUMPY\x09\0".as_slice(), &good[8..]].concat(), "format version is 9"),
        ] {
            let error = NpyReader::open(file(&bytes).path()).err().unwrap().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
