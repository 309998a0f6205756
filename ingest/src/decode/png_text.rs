//! The texts of a PNG file: chunks tEXt, zTXt and iTXt. Pillow's bounds on what they inflate to decide whether a file is good.

use super::DecodeError;
use super::png_chunks::broken;
use flate2::{Decompress, FlushDecompress, Status};

/// Most bytes that one compressed text or profile may inflate to.
const MAX_INFLATED_BYTES: usize = 1 << 20;

/// Checks a text or colour profile as Pillow does when it reads it: a known compression method, and not too much inside.
/// Returns the text's length in characters, 0 for other chunks.
pub(super) fn check(kind: &[u8; 4], data: &[u8]) -> Result<usize, DecodeError> {
    let too_long = || broken(format!("chunk {} inflates to more than a mebibyte", kind.escape_ascii()));
    let method = |method: u8| match method {
        0 => Ok(()),
        other => Err(broken(format!("compression method {other} of chunk {}", kind.escape_ascii()))),
    };
    match kind {
        b"iCCP" => {
            let (first, rest) = split_at_zero(data)
                .map_or(data, |(_, rest)| rest)
                .split_first()
                .ok_or_else(|| broken("an empty iCCP"))?;
            method(*first)?;
            if matches!(inflate(rest), Inflated::TooLong) { Err(too_long()) } else { Ok(0) }
        }
        b"zTXt" => {
            let (key, rest) = split_at_zero(data).unwrap_or((data, &[]));
            method(rest.first().copied().unwrap_or(0))?;
            let text = inflate(rest.get(1..).unwrap_or_default()).known().ok_or_else(too_long)?;
            Ok(if key.is_empty() { 0 } else { text.len() })
        }
        b"iTXt" => match split_at_zero(data).and_then(|(_, rest)| international(rest)) {
            Some(Inflated::TooLong) => Err(too_long()),
            Some(Inflated::Whole(text)) => Ok(std::str::from_utf8(&text).map_or(0, |text| text.chars().count())),
            Some(Inflated::Broken) | None => Ok(0),
        },
        b"tEXt" => Ok(split_at_zero(data).map_or(0, |(key, text)| if key.is_empty() { 0 } else { text.len() })),
        _ => Ok(0),
    }
}

/// A text and the key that names it, as stored in the file.
pub(super) struct Text {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Text {
    /// Reads a text chunk. `None` for other chunks, and for a text without a key or that Pillow does not keep.
    pub(super) fn read(kind: &[u8; 4], data: &[u8]) -> Option<Text> {
        let (key, rest) = split_at_zero(data).unwrap_or((data, &[]));
        let value = match kind {
            b"tEXt" => rest.to_vec(),
            b"zTXt" => inflate(rest.get(1..).unwrap_or_default()).known()?,
            b"iTXt" => match international(rest)? {
                Inflated::Whole(text) => text,
                Inflated::Broken | Inflated::TooLong => return None,
            },
            _ => return None,
        };
        (!key.is_empty()).then(|| Text { key: key.to_vec(), value })
    }
}

/// The text of an iTXt chunk, from what stands after its key. `None` where Pillow passes the chunk over.
fn international(rest: &[u8]) -> Option<Inflated> {
    let (&[compressed, method], rest) = rest.split_first_chunk()?;
    let (_language, rest) = split_at_zero(rest)?;
    let (_translated_key, text) = split_at_zero(rest)?;
    match (compressed, method) {
        (0, _) => Some(Inflated::Whole(text.to_vec())),
        (_, 0) => Some(inflate(text)),
        _ => None,
    }
}

/// The bytes before and after the first zero.
fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// What came out of a compressed text.
enum Inflated {
    /// All that the data holds, even if it ends too early.
    Whole(Vec<u8>),
    /// Not zlib data.
    Broken,
    /// More than the bound.
    TooLong,
}

impl Inflated {
    /// Broken data counts as an empty text.
    fn known(self) -> Option<Vec<u8>> {
        match self {
            Inflated::Whole(text) => Some(text),
            Inflated::Broken => Some(Vec::new()),
            Inflated::TooLong => None,
        }
    }
}

/// Inflates at most a mebibyte.
fn inflate(data: &[u8]) -> Inflated {
    let mut zlib = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let input = &data[zlib.total_in() as usize..];
        if out.len() == MAX_INFLATED_BYTES {
            return if input.is_empty() { Inflated::Whole(out) } else { Inflated::TooLong };
        }
        out.reserve_exact((out.len().max(4096)).min(MAX_INFLATED_BYTES - out.len()));
        let before = (zlib.total_in(), zlib.total_out());
        match zlib.decompress_vec(input, &mut out, FlushDecompress::None) {
            Err(_) => return Inflated::Broken,
            Ok(Status::StreamEnd) => return Inflated::Whole(out),
            Ok(_) if before == (zlib.total_in(), zlib.total_out()) => return Inflated::Whole(out),
            Ok(_) => {}
        }
    }
}
