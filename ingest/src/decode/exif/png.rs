//! Exif and XMP of a PNG file: chunk eXIf, and the texts that Pillow takes for either. The last of a kind counts.

use super::{Exif, Metadata, Xmp};
use crate::decode::bytes::u32_be;
use crate::decode::png_chunks::SIGNATURE_BYTES;
use crate::decode::png_text::Text;

/// How ImageMagick's texts name Exif data.
const RAW_PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";

pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let mut found = Found::default();
    let mut at = SIGNATURE_BYTES;
    let mut frames = 0;
    while let Some(chunk) = chunk(bytes, at) {
        match &chunk.kind {
            b"IEND" => break,
            // Of an animation Pillow reads to the second frame's head.
            b"fcTL" if found.image_data && frames > 0 => break,
            b"acTL" => frames = u32_be(chunk.data, 0).unwrap_or(0),
            b"IDAT" | b"fdAT" => found.image_data = true,
            _ => found.read(&chunk),
        }
        at += chunk.data.len() + 12;
    }
    found.metadata()
}

struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
}

fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let length = u32_be(bytes, at)? as usize;
    let kind = *bytes.get(at + 4..)?.first_chunk()?;
    let start = at + 8;
    Some(Chunk { kind, data: bytes.get(start..start.checked_add(length)?)? })
}

/// What the chunks so far have left.
#[derive(Default)]
struct Found {
    exif: Option<Exif>,
    raw_profile: Option<Vec<u8>>,
    /// Text of the XMP key.
    xmp: Option<Vec<u8>>,
    /// Text of a key that Pillow treats as bytes: it then stops its search for XMP.
    xmp_in_the_way: bool,
    image_data: bool,
}

impl Found {
    fn read(&mut self, chunk: &Chunk<'_>) {
        if &chunk.kind == b"eXIf" {
            self.exif = Some(Exif::Data(chunk.data.to_vec()));
            return;
        }
        let Some(Text { key, value }) = Text::read(&chunk.kind, chunk.data) else { return };
        match &key[..] {
            b"exif" if &chunk.kind == b"tEXt" => self.exif = Some(Exif::Data(value)),
            b"exif" => self.exif = Some(Exif::Unusable),
            RAW_PROFILE => self.raw_profile = Some(value),
            XMP => {
                self.xmp_in_the_way &= &chunk.kind != b"iTXt";
                self.xmp = Some(value);
            }
            b"xmp" => self.xmp_in_the_way = !value.is_empty(),
            _ => {}
        }
    }

    fn metadata(self) -> Metadata {
        let decoded = |text: Vec<u8>| from_hex(&text).map_or(Exif::Unusable, Exif::Data);
        let exif = self.exif.or_else(|| self.raw_profile.map(decoded));
        let xmp = match self.xmp {
            Some(text) if !text.is_empty() => Some(Xmp::Text(text)),
            _ => self.xmp_in_the_way.then_some(Xmp::Unusable),
        };
        Metadata { exif, xmp }
    }
}

/// The bytes of a raw profile: hexadecimal digits from the fourth line on.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.split(|b| *b == b'\n').skip(3).flatten();
    let mut digits = digits.copied().filter(|b| !matches!(b, b' ' | b'\t' | b'\r' | 0x0B | 0x0C));
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut bytes = Vec::new();
    while let Some(high) = digits.next() {
        bytes.push(digit(high)? << 4 | digit(digits.next()?)?);
    }
    Some(bytes)
}
