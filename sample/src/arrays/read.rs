//! `.npy` and `.npz` files of bytes or floats, read from the beginning to the end: never more than a few rows in memory.

use super::ArrayError;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tokengrid_cache::npy::{Dtype, Header};
use zip::ZipArchive;
use zip::read::ZipFile;

/// Element types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Bytes.
    U8,
    /// 32-bit floats, little-endian.
    F32,
    /// 64-bit floats, little-endian.
    F64,
}

impl Element {
    fn width(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }
}

/// An array that is read in the order of its bytes.
pub struct ArrayReader<R> {
    path: PathBuf,
    input: R,
    /// Element type.
    pub element: Element,
    /// Shape; the size in bytes does not overflow.
    pub shape: Vec<usize>,
    buffer: Vec<u8>,
}

impl ArrayReader<BufReader<File>> {
    /// Opens a `.npy` file.
    ///
    /// # Errors
    /// The file is unreadable, or holds no array of bytes or floats in C order.
    pub fn open(path: &Path) -> Result<Self, ArrayError> {
        let file = File::open(path).map_err(ArrayError::io("open", path))?;
        ArrayReader::new(path, "", BufReader::with_capacity(1 << 20, file))
    }
}

impl<R: Read> ArrayReader<R> {
    /// Reads the header. `member` names the array inside an `.npz`.
    fn new(path: &Path, member: &str, mut input: R) -> Result<Self, ArrayError> {
        let refuse = |what: String| {
            let of = if member.is_empty() { String::new() } else { format!("array `{member}`: ") };
            ArrayError::Content { path: path.into(), what: format!("{of}{what}") }
        };
        let header = Header::read(&mut input).map_err(refuse)?;
        let element = element_of(&header).map_err(refuse)?;
        Ok(ArrayReader { path: path.into(), input, element, shape: header.shape, buffer: vec![] })
    }

    /// Fills `out` with the next elements of an array of bytes.
    ///
    /// # Errors
    /// The file ends too early, or is damaged.
    pub fn read_bytes(&mut self, out: &mut [u8]) -> Result<(), ArrayError> {
        self.input.read_exact(out).map_err(ArrayError::io("read all of", &self.path))
    }

    /// The next `count` elements of any type, in C order.
    ///
    /// # Errors
    /// The file ends too early, or is damaged.
    pub fn read_values(&mut self, count: usize) -> Result<Vec<f64>, ArrayError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(count * self.element.width(), 0);
        self.read_bytes(&mut buffer)?;
        let values = match self.element {
            Element::U8 => buffer.iter().map(|&byte| f64::from(byte)).collect(),
            Element::F32 => buffer.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
            Element::F64 => buffer.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        };
        self.buffer = buffer;
        Ok(values)
    }

    /// An error about this array.
    pub fn refuse(&self, what: impl Into<String>) -> ArrayError {
        ArrayError::Content { path: self.path.clone(), what: what.into() }
    }
}

/// An `.npz` file: arrays by name, stored or deflated.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens the file and reads its directory.
    ///
    /// # Errors
    /// The file is unreadable, or no zip archive.
    pub fn open(path: &Path) -> Result<Npz, ArrayError> {
        let file = File::open(path).map_err(ArrayError::io("open", path))?;
        let archive = ZipArchive::new(BufReader::with_capacity(1 << 20, file));
        let refuse = |e| ArrayError::Content { path: path.into(), what: format!("it is no .npz file ({e})") };
        Ok(Npz { path: path.into(), archive: archive.map_err(refuse)? })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an array called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.archive.index_for_name(&member(name)).is_some()
    }

    /// The arrays' names, as text for messages.
    pub fn names(&self) -> String {
        let names = self.archive.file_names().flatten().map(|name| name.trim_end_matches(".npy").to_string());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Opens an array.
    ///
    /// # Errors
    /// There is no such array, or it is not one of bytes or floats in C order.
    pub fn array(&mut self, name: &str) -> Result<ArrayReader<ZipFile<'_, BufReader<File>>>, ArrayError> {
        let path = self.path.clone();
        let refuse = |e| ArrayError::Content { path: path.clone(), what: format!("array `{name}`: {e}") };
        let file = self.archive.by_name(&member(name)).map_err(refuse)?;
        ArrayReader::new(&path, name, file)
    }
}

/// What an array is called inside an `.npz`.
fn member(name: &str) -> String {
    format!("{name}.npy")
}

/// The element type, if the array can be read.
fn element_of(header: &Header) -> Result<Element, String> {
    let element = match header.dtype() {
        Some(Dtype { kind: 'u', width: 1, .. }) => Element::U8,
        Some(Dtype { order: '<', kind: 'f', width: 4 }) => Element::F32,
        Some(Dtype { order: '<', kind: 'f', width: 8 }) => Element::F64,
        _ => return Err(format!("its type is {}; expected uint8, float32 or float64", header.descr)),
    };
    let bytes = header.element_bytes(element.width());
    bytes.ok_or_else(|| format!("its shape is {:?}, which no memory holds", header.shape))?;
    // NumPy calls vectors Fortran-ordered or not as it happens; their bytes are the same.
    if header.fortran_order && header.shape.len() > 1 {
        return Err("it is in Fortran order; save it with np.ascontiguousarray".into());
    }
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told() {
        let read = |descr: &str, fortran_order: bool, shape: &[usize]| {
            element_of(&Header { descr: descr.into(), fortran_order, shape: shape.into(), bytes: 128 })
        };
        assert_eq!(read("<f8", false, &[3, 4]), Ok(Element::F64));
        assert_eq!(read("|u1", false, &[7]), Ok(Element::U8));
        assert_eq!(read("<f4", true, &[7]), Ok(Element::F32));
        assert_eq!(read("<f4", false, &[]), Ok(Element::F32));
        for (descr, fortran_order, shape, word) in [
            (">f8", false, [3, 4], "float64"),
            ("<i4", false, [3, 4], "<i4"),
            ("<f4", true, [3, 4], "ascontiguousarray"),
            ("<f8", false, [usize::MAX, 2], "memory"),
        ] {
            assert!(read(descr, fortran_order, &shape).unwrap_err().contains(word), "{word}");
        }
    }

    #[test]
    fn truncated_files_and_other_kinds_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        for (bytes, word) in [(&b"\x93NUM"[..], "ends"), (b"PK\x03\x04 what is this", "magic"), (b"", "ends")] {
            std::fs::write(&path, bytes).unwrap();
            let error = ArrayReader::open(&path).err().unwrap().to_string();
            assert!(error.contains(word) && error.contains("a.npy"), "{error}");
        }
        crate::arrays::write_npy(&path, crate::arrays::Dtype::F64, &[2, 2], &1f64.to_le_bytes()).unwrap();
        let mut array = ArrayReader::open(&path).unwrap();
        assert_eq!(array.shape, [2, 2]);
        assert_eq!(array.read_values(1).unwrap(), [1.0]);
        assert!(array.read_values(1).unwrap_err().to_string().contains("read all of"));
    }
}
