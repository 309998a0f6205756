//! Tag 274 of the TIFF file that Exif data is, read with Pillow's tolerances.

use crate::decode::bytes;

/// Number of the tag (Exif 2.32, section 4.6.4; 0x0112).
const ORIENTATION: u16 = 274;
const HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 12;
const INLINE_BYTES: u64 = 4;
const PREFIX: &[u8] = b"Exif\0\0";

/// What there is about one tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Absent,
    /// Its first value, if that is a whole number from 0 to 255.
    Value(Option<u8>),
    /// The data is not a TIFF file.
    Unreadable,
}

/// Looks the orientation up in the first directory. Entries after one whose data is missing are ignored.
pub(super) fn orientation(data: &[u8]) -> Tag {
    // A prefix or two.
    let data = data.strip_prefix(PREFIX).unwrap_or(data);
    let data = data.strip_prefix(PREFIX).unwrap_or(data);
    if data.is_empty() {
        return Tag::Absent;
    }
    let Some(tiff) = Tiff::open(data) else { return Tag::Unreadable };
    tiff.find(ORIENTATION)
}

struct Tiff<'a> {
    data: &'a [u8],
    big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn open(data: &'a [u8]) -> Option<Tiff<'a>> {
        let head = data.get(..HEADER_BYTES)?;
        // The third kind is BigTIFF, taken for TIFF as long as its version is in the wrong byte order for Pillow.
        let big_endian = match &head[..4] {
            b"MM\0\x2a" | b"MM\x2a\0" | b"MM\0\x2b" => true,
            b"II\x2a\0" | b"II\0\x2a" => false,
            _ => return None,
        };
        Some(Tiff { data, big_endian })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        bytes::u16_le(self.data, at).map(|v| if self.big_endian { v.swap_bytes() } else { v })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        bytes::u32_le(self.data, at).map(|v| if self.big_endian { v.swap_bytes() } else { v })
    }

    fn find(&self, wanted: u16) -> Tag {
        self.try_find(wanted).unwrap_or(Tag::Absent)
    }

    /// `None` when the data ends before the tag was found.
    fn try_find(&self, wanted: u16) -> Option<Tag> {
        let directory = self.u32(4)? as usize;
        let count = self.u16(directory)?;
        let mut outside_bytes = 0u64;
        for entry in 0..usize::from(count) {
            let at = directory + 2 + ENTRY_BYTES * entry;
            self.data.get(at..at + ENTRY_BYTES)?;
            let (tag, kind, values) = (self.u16(at)?, self.u16(at + 2)?, self.u32(at + 4)?);
            let Some(value_bytes) = value_bytes(kind) else { continue };
            let size = u64::from(values) * value_bytes;
            let start = if size > INLINE_BYTES {
                outside_bytes += size;
                if outside_bytes > self.data.len() as u64 {
                    continue;
                }
                let start = self.u32(at + 8)? as usize;
                self.data.get(start..start.checked_add(usize::try_from(size).ok()?)?)?;
                start
            } else {
                at + 8
            };
            if tag == wanted && size > 0 {
                return Some(Tag::Value(self.value(kind, start)));
            }
        }
        Some(Tag::Absent)
    }

    /// The value at `at`, which is there, if it is a whole number of a numeric type.
    fn value(&self, kind: u16, at: usize) -> Option<u8> {
        let wide = |at| {
            let (first, second) = (u64::from(self.u32(at)?), u64::from(self.u32(at + 4)?));
            Some(if self.big_endian { first << 32 | second } else { second << 32 | first })
        };
        let whole = |v: f64| (v.fract() == 0.0 && (0.0..=255.0).contains(&v)).then_some(v as u8);
        match kind {
            // Bytes, text and undefined data equal no number.
            6 => self.data.get(at).copied().filter(|v| *v < 128),
            3 | 8 => self.u16(at)?.try_into().ok(),
            4 | 9 | 13 => self.u32(at)?.try_into().ok(),
            5 | 10 => match (self.u32(at)?, self.u32(at + 4)?) {
                (above, below) if kind == 10 => quotient(i64::from(above as i32), i64::from(below as i32)),
                (above, below) => quotient(i64::from(above), i64::from(below)),
            },
            11 => whole(f64::from(f32::from_bits(self.u32(at)?))),
            12 => whole(f64::from_bits(wide(at)?)),
            16 => wide(at)?.try_into().ok(),
            _ => None,
        }
    }
}

fn quotient(above: i64, below: i64) -> Option<u8> {
    let whole = below != 0 && above % below == 0;
    if whole { u8::try_from(above / below).ok() } else { None }
}

/// Bytes of one value of a TIFF type.
fn value_bytes(kind: u16) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
    }
}
