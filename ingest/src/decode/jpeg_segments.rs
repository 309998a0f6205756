//! The segments of a JPEG file before its first scan, as Pillow's own reader walks them, and what it demands of them.
//!
//! Pillow reads them before libjpeg does, and refuses some files that libjpeg would decode.

use super::{DecodeError, Format};

// Codes of markers: ITU-T T.81, table B.1.
const START_OF_SCAN: u8 = 0xDA;
const QUANTIZATION_TABLES: u8 = 0xDB;

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::Jpeg, what)
}

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::Jpeg, what)
}

/// The segments before the first scan: marker and data.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// `bytes` begin with `FF D8 FF`.
    pub(super) fn new(bytes: &'a [u8]) -> Segments<'a> {
        Segments { bytes, at: 2 }
    }

    /// The next segment; `None` at the first scan.
    pub(super) fn next_segment(&mut self) -> Result<Option<(u8, &'a [u8])>, DecodeError> {
        loop {
            let marker = self.next_marker()?;
            match marker {
                // Restart markers, the file's ends and the reserved ones stand alone.
                0xC8 | 0xD0..=0xD9 | 0xF0..=0xFD => {}
                START_OF_SCAN => return self.segment_data().map(|_| None),
                _ => return self.segment_data().map(|data| Some((marker, data))),
            }
        }
    }

    fn segment_data(&mut self) -> Result<&'a [u8], DecodeError> {
        let too_short = || truncated("the data ends inside the header");
        let length = self.bytes.get(self.at..self.at + 2).ok_or_else(too_short)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).saturating_sub(2);
        let start = self.at + 2;
        let data = self.bytes.get(start..start + length).ok_or_else(too_short)?;
        self.at = start + length;
        Ok(data)
    }

    /// Moves past the next marker; all bytes before it are skipped.
    fn next_marker(&mut self) -> Result<u8, DecodeError> {
        let end = || truncated("the data ends inside the header");
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|b| *b == 0xFF).ok_or_else(end)? + 1;
            while *self.bytes.get(self.at).ok_or_else(end)? == 0xFF {
                self.at += 1;
            }
            let marker = self.bytes[self.at];
            self.at += 1;
            match marker {
                0 => {}
                0xC0..=0xFE => return Ok(marker),
                _ => return Err(broken(format!("no marker at byte {}", self.at - 2))),
            }
        }
    }
}

/// Refuses what Pillow refuses before it calls libjpeg. Returns where the first scan's header ends.
pub(super) fn check(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut segments = Segments::new(bytes);
    let mut profile: Option<&[u8]> = None;
    while let Some((marker, data)) = segments.next_segment()? {
        match marker {
            0xC4 | 0xCC => {}
            0xC0..=0xCF | 0xDE => check_frame(data, profile.take())?,
            QUANTIZATION_TABLES => check_quantization(data)?,
            0xE0 if data.starts_with(b"JFIF") && data.len() < 7 => return Err(broken("a JFIF segment too short")),
            0xE2 if data.starts_with(b"ICC_PROFILE\0") => {
                // Of the parts of a profile Pillow reads the one that sorts first.
                profile = Some(profile.map_or(data, |least| least.min(data)));
            }
            0xED if data.starts_with(b"Photoshop 3.0\0") => check_photoshop(data)?,
            0xEE if data.starts_with(b"Adobe") && data.len() < 7 => return Err(broken("an Adobe segment too short")),
            _ => {}
        }
    }
    Ok(segments.at)
}

fn check_frame(data: &[u8], profile: Option<&[u8]>) -> Result<(), DecodeError> {
    let [bits, _, _, _, _, components, layers @ ..] = data else { return Err(broken("a frame header too short")) };
    if *bits != 8 {
        return Err(DecodeError::unsupported(Format::Jpeg, format!("{bits} bits per sample")));
    }
    if !matches!(components, 1 | 3 | 4) {
        return Err(DecodeError::unsupported(Format::Jpeg, format!("{components} components")));
    }
    if profile.is_some_and(|profile| profile.len() < 14) {
        return Err(broken("a colour profile too short"));
    }
    if layers.len() % 3 != 0 {
        return Err(broken("an incomplete component in the frame header"));
    }
    Ok(())
}

fn check_quantization(mut data: &[u8]) -> Result<(), DecodeError> {
    while let Some(first) = data.first() {
        let table_bytes = if first >> 4 == 0 { 65 } else { 129 };
        data = data.get(table_bytes..).ok_or_else(|| broken("a quantization table too short"))?;
    }
    Ok(())
}

/// Image resources may end anywhere but before the length of a name.
fn check_photoshop(data: &[u8]) -> Result<(), DecodeError> {
    const RESOURCE: &[u8] = b"8BIM";
    let mut at = 14;
    while data.get(at..at + 4) == Some(RESOURCE) {
        if data.len() < at + 6 {
            return Ok(());
        }
        let name = *data.get(at + 6).ok_or_else(|| broken("an image resource without a name"))?;
        at += 7 + usize::from(name);
        at += at % 2;
        let Some(size) = super::bytes::u32_be(data, at) else { return Ok(()) };
        at = at.saturating_add(4).saturating_add(size as usize);
        at = at.saturating_add(at % 2);
        if at > data.len() {
            return Ok(());
        }
    }
    Ok(())
}
