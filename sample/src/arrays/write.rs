//! NumPy's file formats, written: `.npy`, and `.npz` with uncompressed members.

use super::ArrayError;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokengrid_cache::AtomicFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Element types that are written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Bytes.
    U8,
    /// 32-bit integers.
    I32,
    /// 64-bit floats.
    F64,
}

impl Dtype {
    fn descr(self) -> &'static str {
        match self {
            Dtype::U8 => "|u1",
            Dtype::I32 => "<i4",
            Dtype::F64 => "<f8",
        }
    }
}

/// The header of a `.npy` file: 64-byte aligned, version 1.0.
fn npy_header(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut text =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", dtype.descr(), sizes.trim_end());
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', padding % 64));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// The bytes of a `.npy` file.
pub fn npy(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = npy_header(dtype, shape);
    file.extend_from_slice(bytes);
    file
}

/// Writes a whole array; the file appears whole.
///
/// # Errors
/// The file cannot be written.
pub fn write_npy(path: &Path, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<(), ArrayError> {
    tokengrid_cache::write_atomically(path, &npy(dtype, shape, bytes)).map_err(ArrayError::io("write", path))
}

/// An array of an `.npz` file.
#[derive(Debug)]
pub struct NamedArray {
    /// Its key.
    pub name: &'static str,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Elements in C order, little-endian.
    pub bytes: Vec<u8>,
}

/// The comment of an archive by which it is known as one that this program made, so that it may be replaced.
const COMMENT: &str = "tokengrid";

/// Writes arrays to an `.npz` file, which appears whole.
///
/// # Errors
/// The file cannot be written.
pub fn write_npz(path: &Path, arrays: &[NamedArray]) -> Result<(), ArrayError> {
    let write = || -> std::io::Result<()> {
        let mut zip = ZipWriter::new(AtomicFile::create(path)?);
        zip.set_comment(COMMENT).map_err(std::io::Error::other)?;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for array in arrays {
            zip.start_file(format!("{}.npy", array.name), options).map_err(std::io::Error::other)?;
            zip.write_all(&npy_header(array.dtype, &array.shape))?;
            zip.write_all(&array.bytes)?;
        }
        zip.finish().map_err(std::io::Error::other)?.publish()
    };
    write().map_err(ArrayError::io("write", path))
}

/// An `.npz` file with the member `arr_0`, bytes `[N, H, W, 3]`, written image by image: nothing is held in memory. This
/// is what the ADM evaluation suite reads.
pub struct NpzImages {
    path: PathBuf,
    zip: ZipWriter<AtomicFile>,
}

impl NpzImages {
    /// Starts a file of `count` images of `side * side` pixels.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, count: usize, side: usize) -> Result<NpzImages, ArrayError> {
        let start = || -> std::io::Result<ZipWriter<AtomicFile>> {
            let mut zip = ZipWriter::new(AtomicFile::create(path)?);
            zip.set_comment(COMMENT).map_err(std::io::Error::other)?;
            // More than 4 GiB are normal here: 50,000 images of 256 x 256 are 9.8 GB.
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            zip.start_file("arr_0.npy", options).map_err(std::io::Error::other)?;
            zip.write_all(&npy_header(Dtype::U8, &[count, side, side, 3]))?;
            Ok(zip)
        };
        let zip = start().map_err(ArrayError::io("create", path))?;
        Ok(NpzImages { path: path.into(), zip })
    }

    /// Appends the pixels of one image.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, rgb: &[u8]) -> Result<(), ArrayError> {
        self.zip.write_all(rgb).map_err(ArrayError::io("write", &self.path))
    }

    /// Closes the file and gives it its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<(), ArrayError> {
        let path = self.path.clone();
        self.close()?.publish().map_err(ArrayError::io("write", path))
    }

    /// The whole file, which has yet to get its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn close(self) -> Result<AtomicFile, ArrayError> {
        let close = || self.zip.finish().map_err(std::io::Error::other);
        close().map_err(ArrayError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_what_numpy_writes() {
        let header = npy_header(Dtype::I32, &[2, 256]);
        assert_eq!(header.len() % 64, 0);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&header[10..]).unwrap();
        assert!(text.starts_with("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 256,), }"), "{text}");
        assert!(text.ends_with('\n'));
    }
}
