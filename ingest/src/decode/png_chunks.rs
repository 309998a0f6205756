//! The chunks of a PNG file, read with Pillow's tolerances.

use super::bytes::u32_be;
use super::{DecodeError, Format};
use flate2::Crc;

pub(super) const SIGNATURE_BYTES: usize = 8;

pub(super) fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::Png, what)
}

pub(super) fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::Png, what)
}

/// A chunk's head; its data begins at `start`.
pub(super) struct Head {
    pub(super) kind: [u8; 4],
    start: usize,
    pub(super) length: usize,
}

/// Walks the chunks of a file.
pub(super) struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Chunks<'a> {
        Chunks { bytes, at: SIGNATURE_BYTES }
    }

    /// Reads the next head and stands at its data.
    pub(super) fn next_head(&mut self) -> Result<Head, DecodeError> {
        let length = u32_be(self.bytes, self.at).ok_or_else(|| truncated("the data ends between chunks"))?;
        let kind = self.bytes.get(self.at + 4..self.at + 8).ok_or_else(|| truncated("the data ends between chunks"))?;
        let kind: [u8; 4] = kind.try_into().unwrap_or_default();
        if !kind.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            return Err(broken(format!("chunk name {}", kind.escape_ascii())));
        }
        self.at += 8;
        Ok(Head { kind, start: self.at, length: length as usize })
    }

    /// The chunk's data, after its CRC has been checked; then moves past it.
    pub(super) fn checked_data(&mut self, chunk: &Head) -> Result<&'a [u8], DecodeError> {
        let data = self.data(chunk)?;
        let stored = u32_be(self.bytes, self.at).ok_or_else(|| truncated("the data ends inside a checksum"))?;
        let mut crc = Crc::new();
        crc.update(&chunk.kind);
        crc.update(data);
        if stored != crc.sum() {
            return Err(broken(format!("wrong checksum of chunk {}", chunk.kind.escape_ascii())));
        }
        self.skip_crc();
        Ok(data)
    }

    /// The chunk's data; stands at its CRC.
    pub(super) fn data(&mut self, chunk: &Head) -> Result<&'a [u8], DecodeError> {
        let end = chunk.start.checked_add(chunk.length);
        let data = end.and_then(|end| self.bytes.get(chunk.start..end));
        let data = data.ok_or_else(|| truncated("the data ends inside a chunk"))?;
        self.at = chunk.start + chunk.length;
        Ok(data)
    }

    /// Up to `count` bytes from here; then moves past them.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let taken = &rest[..count.min(rest.len())];
        self.at += taken.len();
        taken
    }

    /// The CRC at which the walk stands; `None` if the file has ended.
    pub(super) fn stored_crc(&self) -> Option<u32> {
        u32_be(self.bytes, self.at)
    }

    pub(super) fn skip_crc(&mut self) {
        self.take(4);
    }
}
