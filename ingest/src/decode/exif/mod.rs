//! The orientation in a file's metadata, as Pillow's `ImageOps.exif_transpose` would apply it.
//!
//! Pillow looks for tag 274 of the Exif data, and for `tiff:Orientation` in the XMP text where Exif has no such tag; Exif
//! data that is not TIFF stops it from looking further. Both may stand in a JPEG, PNG or WebP file; Pillow finds neither
//! in GIF and BMP.

mod jpeg;
mod png;
mod tiff;
mod xmp;

use super::{Format, webp};
use tiff::Tag;

/// What an image shows without being turned.
const UPRIGHT: u8 = 1;

/// The orientation of the picture, 1 to 8; 1 (upright) if the file has none that can be read. Never fails.
///
/// It equals Pillow's for every file that Pillow accepts. Costs a walk over the file's headers.
#[must_use]
pub fn exif_orientation(bytes: &[u8]) -> u8 {
    match Format::of(bytes) {
        Some(Format::Jpeg) => jpeg::metadata(bytes).orientation(),
        Some(Format::Png) => png::metadata(bytes).orientation(),
        Some(Format::WebP) => webp::open(bytes).map_or(UPRIGHT, |file| {
            let text = |name| file.chunk(name).map(|data| data.to_vec());
            Metadata { exif: text(c"EXIF").map(Exif::Data), xmp: text(c"XMP ").map(Xmp::Text) }.orientation()
        }),
        Some(Format::Gif | Format::Bmp) | None => UPRIGHT,
    }
}

/// A file's Exif data.
enum Exif {
    /// A TIFF file, perhaps after `Exif\0\0`.
    Data(Vec<u8>),
    /// Something that stands in its place and makes Pillow give up.
    Unusable,
}

/// A file's XMP text.
enum Xmp {
    Text(Vec<u8>),
    /// Something that stands in its place and makes Pillow give up.
    Unusable,
}

/// Where a file may say how it is to be turned.
#[derive(Default)]
struct Metadata {
    exif: Option<Exif>,
    xmp: Option<Xmp>,
}

impl Metadata {
    fn orientation(&self) -> u8 {
        let tag = match &self.exif {
            Some(Exif::Data(data)) => tiff::orientation(data),
            Some(Exif::Unusable) => Tag::Unreadable,
            None => Tag::Absent,
        };
        match (tag, &self.xmp) {
            (Tag::Value(value), _) => value.filter(|v| (1..=8).contains(v)).unwrap_or(UPRIGHT),
            (Tag::Absent, Some(Xmp::Text(text))) => xmp::orientation(text).unwrap_or(UPRIGHT),
            (Tag::Absent, Some(Xmp::Unusable) | None) | (Tag::Unreadable, _) => UPRIGHT,
        }
    }
}

#[cfg(test)]
mod tests;
