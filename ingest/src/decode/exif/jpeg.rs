//! Exif and XMP segments of a JPEG file, up to its first scan.

use super::{Exif, Metadata, Xmp};
use crate::decode::jpeg_segments::Segments;

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const APP1: u8 = 0xE1;

/// Exif data may be spread over several segments; of XMP the last counts.
pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let mut exif: Option<Vec<u8>> = None;
    let mut xmp = None;
    let mut segments = Segments::new(bytes);
    while let Ok(Some((marker, data))) = segments.next_segment() {
        if marker != APP1 {
            continue;
        }
        if let Some(more) = data.strip_prefix(EXIF) {
            match &mut exif {
                Some(exif) => exif.extend_from_slice(more),
                None => exif = Some(data.to_vec()),
            }
        } else if let Some(text) = data.strip_prefix(XMP) {
            xmp = Some(text);
        }
    }
    Metadata { exif: exif.map(Exif::Data), xmp: xmp.map(|text| Xmp::Text(text.to_vec())) }
}
