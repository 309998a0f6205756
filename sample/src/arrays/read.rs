//! `.npy` and `.npz` files of bytes or floats, read from the beginning to the end: never more than a few rows in memory.

use super::ArrayError;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;
use zip::read::ZipFile;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A bound on what is read into memory for a header; NumPy's own limit is 10,000.
const HEADER_BYTES_MAX: usize = 1 << 16;

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
    /// Sizes; the product fits.
    pub shape: Vec<usize>,
    buffer: Vec<u8>,
}

impl ArrayReader<BufReader<File>> {
    /// Opens a `.npy` file.
    ///
    /// # Errors
    /// Unreadable, or no array of bytes or floats in C order.
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
        let text = read_header(&mut input).map_err(refuse)?;
        let (element, shape) = parse_header(&text).map_err(refuse)?;
        Ok(ArrayReader { path: path.into(), input, element, shape, buffer: vec![] })
    }

    /// Fills `out` with the next elements of an array of bytes.
    ///
    /// # Errors
    /// The file ends too early, or is damaged.
    pub fn read_bytes(&mut self, out: &mut [u8]) -> Result<(), ArrayError> {
        self.input.read_exact(out).map_err(ArrayError::io("read all of", &self.path))
    }

    /// The next `count` elements of any type.
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
    /// Unreadable, or no zip file.
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
    /// No such array, or none of bytes or floats in C order.
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

fn read_header(input: &mut impl Read) -> Result<String, String> {
    let mut take = |count: usize| {
        let mut bytes = vec![0; count];
        input.read_exact(&mut bytes).map(|()| bytes).map_err(|_| "it ends within its header".to_string())
    };
    let start = take(8)?;
    if !start.starts_with(MAGIC) {
        return Err("it is no .npy array: the magic number is missing".into());
    }
    let length = match start[6] {
        1 => take(2)?,
        2 | 3 => take(4)?,
        version => return Err(format!("its format version is {version}; 1, 2 and 3 are known")),
    };
    let length = length.iter().rev().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header has {length} bytes"));
    }
    String::from_utf8(take(length)?).map_err(|_| "its header is no text".into())
}

/// Type and shape from a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Result<(Element, Vec<usize>), String> {
    let field = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    let until = |rest: &str, ends: &[char]| rest.split(ends).next().unwrap_or_default().trim().to_string();
    let descr = until(field("descr").ok_or("its header has no type")?, &[',', '}']);
    let element = match descr.trim_matches(['\'', '"']) {
        "|u1" | "<u1" | "u1" => Element::U8,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => return Err(format!("its type is {other}; expected uint8, float32 or float64")),
    };
    let sizes = field("shape").and_then(|rest| rest.strip_prefix('(')).ok_or("its header has no shape")?;
    let sizes = until(sizes, &[')']);
    let parsed = sizes.split(',').map(str::trim).filter(|size| !size.is_empty()).map(str::parse);
    let shape: Vec<usize> = parsed.collect::<Result<_, _>>().map_err(|_| format!("its shape is ({sizes})"))?;
    let bytes = shape.iter().try_fold(element.width(), |product, &size| product.checked_mul(size));
    bytes.ok_or_else(|| format!("its shape is ({sizes}), which no memory holds"))?;
    // NumPy calls vectors Fortran-ordered or not as it happens; their bytes are the same.
    let is_fortran = field("fortran_order").is_some_and(|rest| rest.starts_with("True"));
    if is_fortran && shape.len() > 1 {
        return Err("it is in Fortran order; save it with np.ascontiguousarray".into());
    }
    Ok((element, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_and_what_cannot_be_read_is_told() {
        let parse = |descr: &str, order: &str, shape: &str| {
            parse_header(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"))
        };
        assert_eq!(parse("<f8", "False", "(3, 4)"), Ok((Element::F64, vec![3, 4])));
        assert_eq!(parse("|u1", "False", "(7,)"), Ok((Element::U8, vec![7])));
        assert_eq!(parse("<f4", "True", "(7,)"), Ok((Element::F32, vec![7])));
        assert_eq!(parse("<f4", "False", "()"), Ok((Element::F32, vec![])));
        for (descr, order, shape, word) in [
            (">f8", "False", "(3, 4)", "float64"),
            ("<i4", "False", "(3, 4)", "<i4"),
            ("<f4", "True", "(3, 4)", "ascontiguousarray"),
            ("<f4", "False", "(3, -4)", "(3, -4)"),
            ("<f8", "False", "(9999999999, 9999999999)", "memory"),
        ] {
            assert!(parse(descr, order, shape).unwrap_err().contains(word), "{word}");
        }
    }

    #[test]
    fn files_that_are_cut_or_of_another_kind_are_refused() {
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
