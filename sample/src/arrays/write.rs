//! Writes NumPy's file formats: `.npy`, and `.npz` with uncompressed members.

use super::ArrayError;
use crate::late_file::{Failure, LateFile};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokengrid_cache::AtomicFile;
use tokengrid_cache::npy::Header;
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

/// The bytes of a `.npy` file: `bytes` are the elements in C order, little-endian.
pub(crate) fn npy(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![];
    Header::write(&mut file, dtype.descr(), shape).expect("a vector takes all bytes");
    file.extend_from_slice(bytes);
    file
}

/// Writes a whole array, its elements in C order, little-endian; the file appears whole.
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
        let (file, failure) = LateFile::new(AtomicFile::create(path)?);
        let mut zip = ZipWriter::new(file);
        zip.set_comment(COMMENT).map_err(std::io::Error::other)?;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for array in arrays {
            zip.start_file(format!("{}.npy", array.name), options).map_err(std::io::Error::other)?;
            Header::write(&mut zip, array.dtype.descr(), &array.shape)?;
            zip.write_all(&array.bytes)?;
            failure.check()?;
        }
        zip.finish().map_err(std::io::Error::other)?.into_inner()?.publish()
    };
    write().map_err(ArrayError::io("write", path))
}

/// An `.npz` file with the member `arr_0`, bytes `[N, H, W, 3]`, written image by image: nothing is held in memory. This
/// is what the ADM evaluation suite reads.
pub struct NpzImages {
    path: PathBuf,
    zip: ZipWriter<LateFile>,
    failure: Failure,
}

impl NpzImages {
    /// Starts a file of `count` images of `side * side` pixels.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, count: usize, side: usize) -> Result<NpzImages, ArrayError> {
        let start = || -> std::io::Result<(ZipWriter<LateFile>, Failure)> {
            let (file, failure) = LateFile::new(AtomicFile::create(path)?);
            let mut zip = ZipWriter::new(file);
            zip.set_comment(COMMENT).map_err(std::io::Error::other)?;
            // More than 4 GiB are normal here: 50,000 images of 256 x 256 are 9.8 GB.
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            zip.start_file("arr_0.npy", options).map_err(std::io::Error::other)?;
            Header::write(&mut zip, Dtype::U8.descr(), &[count, side, side, 3])?;
            Ok((zip, failure))
        };
        let (zip, failure) = start().map_err(ArrayError::io("create", path))?;
        Ok(NpzImages { path: path.into(), zip, failure })
    }

    /// Appends the pixels of one image, `[height, width, 3]`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, rgb: &[u8]) -> Result<(), ArrayError> {
        let written = self.zip.write_all(rgb).and_then(|()| self.failure.check());
        written.map_err(ArrayError::io("write", &self.path))
    }

    /// Closes the file and gives it its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<(), ArrayError> {
        let path = self.path.clone();
        self.close()?.publish().map_err(ArrayError::io("write", path))
    }

    /// Completes the file without publishing it under its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn close(self) -> Result<AtomicFile, ArrayError> {
        let close = || self.zip.finish().map_err(std::io::Error::other)?.into_inner();
        close().map_err(ArrayError::io("write", &self.path))
    }
}
