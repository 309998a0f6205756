//! Exif and XMP segments of a JPEG file, up to its first scan.

use super::{Exif, Metadata, Xmp};

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const START_OF_SCAN: u8 = 0xDA;
const APP1: u8 = 0xE1;

/// Exif data may be spread over several segments; of XMP the last counts.
pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let mut exif: Option<Vec<u8>> = None;
    let mut xmp = None;
    for (_, data) in (Segments { bytes, at: 2 }).filter(|(marker, _)| *marker == APP1) {
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

/// The segments before the first scan: marker and data.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let marker = self.next_marker()?;
            // Restart markers, the file's ends and the reserved ones stand alone.
            if matches!(marker, 0xC8 | 0xD0..=0xD9 | 0xF0..=0xFD) {
                continue;
            }
            if marker == START_OF_SCAN {
                return None;
            }
            let length = self.bytes.get(self.at..self.at + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]])).saturating_sub(2);
            let start = self.at + 2;
            let data = self.bytes.get(start..start + length)?;
            self.at = start + length;
            return Some((marker, data));
        }
    }
}

impl Segments<'_> {
    /// Goes behind the next marker; whatever lies before it is skipped.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|b| *b == 0xFF)? + 1;
            while *self.bytes.get(self.at)? == 0xFF {
                self.at += 1;
            }
            let marker = self.bytes[self.at];
            self.at += 1;
            match marker {
                0 => {}
                0xC0..=0xFE => return Some(marker),
                _ => return None, // no marker: Pillow refuses the file
            }
        }
    }
}
