//! The header of NumPy's `.npy` files, for all who read or write arrays: magic, version, length, a Python dict as text.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A bound on what is read into memory for a header; NumPy's own limit is 10,000.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// What an array's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The element type in NumPy's words, without quotes: `<i4`.
    pub descr: String,
    /// Whether the first index runs fastest.
    pub fortran_order: bool,
    /// Size of each axis, in elements.
    pub shape: Vec<usize>,
    /// Bytes of the file before the elements.
    pub bytes: usize,
}

/// The parts of an element type such as `<i4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    /// `<` little-endian, `>` big-endian, `|` where it means nothing.
    pub order: char,
    /// `i`, `u`, `f`, ...
    pub kind: char,
    /// Bytes of an element.
    pub width: usize,
}

impl Header {
    /// Reads a header, and no byte after it.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence about the array.
    pub fn read(input: &mut impl Read) -> Result<Header, String> {
        let start: [u8; 8] = take(input)?;
        if &start[..6] != MAGIC {
            return Err("it does not begin with the magic number of .npy".into());
        }
        let (length, before) = match start[6] {
            1 => (usize::from(u16::from_le_bytes(take(input)?)), 10),
            2 | 3 => (u32::from_le_bytes(take(input)?) as usize, 12),
            version => return Err(format!("its format version is {version}; 1, 2 and 3 are known")),
        };
        if length > HEADER_BYTES_MAX {
            return Err(format!("its header has {length} bytes"));
        }
        let mut text = vec![0; length];
        input.read_exact(&mut text).map_err(within_header)?;
        let text = String::from_utf8(text).map_err(|_| "its header is not text")?;
        Header::parse(&text, before + length)
    }

    fn parse(text: &str, bytes: usize) -> Result<Header, String> {
        let descr = field(text, "descr").ok_or("its header has no type")?.trim_matches(['\'', '"']).to_owned();
        let sides = field(text, "shape").ok_or("its header has no shape")?;
        let shape = parse_shape(sides).ok_or_else(|| format!("its shape is {sides}"))?;
        let fortran_order = match field(text, "fortran_order") {
            Some("True") => true,
            Some("False") => false,
            _ => return Err("its header does not say in which order its elements are".into()),
        };
        Ok(Header { descr, fortran_order, shape, bytes })
    }

    /// The parts of the element type; `None` for records and others that have no such parts.
    pub fn dtype(&self) -> Option<Dtype> {
        let mut chars = self.descr.chars().peekable();
        let order = chars.next_if(|first| matches!(first, '<' | '>' | '|')).unwrap_or('|');
        let kind = chars.next().filter(char::is_ascii_alphabetic)?;
        Some(Dtype { order, kind, width: chars.collect::<String>().parse().ok()? })
    }

    /// Bytes of all elements, where each has `width`; `None` where no memory holds them.
    pub fn element_bytes(&self, width: usize) -> Option<usize> {
        self.shape.iter().try_fold(width, |product, &size| product.checked_mul(size))
    }

    /// Writes the header of an array in C order, version 1.0, padded so that its elements are aligned to 64 bytes.
    ///
    /// # Errors
    /// Those of writing to `out`.
    pub fn write(out: &mut impl Write, descr: &str, shape: &[usize]) -> io::Result<()> {
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
}

fn take<const COUNT: usize>(input: &mut impl Read) -> Result<[u8; COUNT], String> {
    let mut bytes = [0; COUNT];
    input.read_exact(&mut bytes).map_err(within_header)?;
    Ok(bytes)
}

fn within_header(_: io::Error) -> String {
    "it ends within its header".into()
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

/// `(3, 4)`, `(3,)`, `()`.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let sides = inner.split(',').map(str::trim).filter(|side| !side.is_empty());
    sides.map(|side| side.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(descr: &str, shape: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Header::write(&mut bytes, descr, shape).unwrap();
        bytes
    }

    #[test]
    fn a_header_is_what_numpy_writes() {
        let header = written("<i4", &[2, 256]);
        assert_eq!(header.len() % 64, 0);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&header[10..]).unwrap();
        assert!(text.starts_with("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 256), }  "), "{text}");
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn what_is_written_is_read() {
        for (descr, shape, kind, width) in
            [("<i4", vec![2, 256], 'i', 4), ("|u1", vec![7], 'u', 1), ("<f8", vec![], 'f', 8)]
        {
            let bytes = written(descr, &shape);
            let header = Header::read(&mut [&bytes[..], b"elements"].concat().as_slice()).unwrap();
            assert_eq!(header, Header { descr: descr.into(), fortran_order: false, shape, bytes: bytes.len() });
            let dtype = header.dtype().unwrap();
            assert_eq!((dtype.kind, dtype.width), (kind, width), "{descr}");
        }
    }

    #[test]
    fn other_headers_are_refused_with_the_reason() {
        let parse = |text: &str| Header::parse(text, 0);
        for (text, word) in [
            ("{'fortran_order': False, 'shape': (3,)}", "no type"),
            ("{'descr': '<i4', 'fortran_order': False}", "no shape"),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (3, -4)}", "its shape is (3, -4)"),
            ("{'descr': '<i4', 'shape': (3,)}", "order"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let record = parse("{'descr': [('a', '<i4')], 'fortran_order': True, 'shape': (3,)}").unwrap();
        assert!(record.dtype().is_none() && record.fortran_order);
        let huge = parse("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999)}").unwrap();
        assert_eq!(huge.element_bytes(8), None);
    }
}
