//! PNG: chunks, the order and tolerance of Pillow's reader, and the zlib stream of the IDAT chunks.
//!
//! Pillow's rules, which are this module's: the CRC of every chunk before the first IDAT must be right; IDAT's CRC is never
//! looked at; the zlib stream must decode, and its Adler-32 must be right if it has arrived when the last row has; what
//! follows the picture only has to be made of whole chunks, and IEND may be missing.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::bytes::u32_be;
use super::palette::Palette;
use super::png_rows::{Layout, Rows};
use super::{DecodeError, Format, Limits, RgbImage};

const SIGNATURE_BYTES: usize = 8;

/// Compressed bytes given to inflate at a time: Pillow's block size. It shows in one place only: an Adler-32 in the block
/// after the one that completes the picture is not looked at.
const BLOCK_BYTES: usize = 65536;

/// Pillow's bound on one in-memory palette.
const MAX_PALETTE_BYTES: usize = 768;

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::Png, what)
}

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::Png, what)
}

pub(super) fn decode(bytes: &[u8], limits: &Limits, image: &mut RgbImage) -> Result<(), DecodeError> {
    let mut chunks = Chunks { bytes, at: SIGNATURE_BYTES };
    let mut header = Header::default();
    let first_idat = loop {
        let chunk = chunks.next_head()?;
        match &chunk.kind {
            b"IDAT" => break chunk.length,
            b"IEND" => return Err(broken("no image data")),
            _ => header.read(&chunk, chunks.checked_data(&chunk)?)?,
        }
    };
    let layout = header.layout.ok_or_else(|| broken("no IHDR with a legal bit depth and colour type"))?;
    let rgb_bytes = limits.check(header.width, header.height)?;
    let palette = header.palette.unwrap_or_else(Palette::black);
    let mut rows =
        Rows::new(header.width, header.height, layout, palette, header.interlaced, &mut image.pixels, rgb_bytes)?;
    let mut data = ImageData { chunks, left: first_idat };
    inflate(&mut data, &mut rows)?;
    rows.finish(rgb_bytes);
    data.check_rest(header.layout)?;
    (image.width, image.height) = (header.width, header.height);
    Ok(())
}

/// Feeds the image data to `rows` until the picture is complete.
fn inflate(data: &mut ImageData<'_>, rows: &mut Rows<'_>) -> Result<(), DecodeError> {
    let mut zlib = Decompress::new(true);
    loop {
        let mut input = data.next_block()?.ok_or_else(|| truncated("the image data ends too early"))?;
        while !input.is_empty() {
            let (consumed, produced) = (zlib.total_in(), zlib.total_out());
            let status = zlib
                .decompress(input, rows.unfilled(), FlushDecompress::None)
                .map_err(|e| broken(format!("image data: {}", e.message().unwrap_or("not a zlib stream"))))?;
            input = &input[(zlib.total_in() - consumed) as usize..];
            if !rows.advance((zlib.total_out() - produced) as usize)? {
                break; // the row is not complete: more input, and after the stream's end none helps
            }
            if rows.complete() || status == Status::StreamEnd {
                return Ok(());
            }
        }
    }
}

/// What stands before the image data.
#[derive(Default)]
struct Header {
    width: u32,
    height: u32,
    layout: Option<Layout>,
    interlaced: bool,
    palette: Option<Palette>,
}

impl Header {
    fn read(&mut self, chunk: &Head, data: &[u8]) -> Result<(), DecodeError> {
        match &chunk.kind {
            b"IHDR" => self.read_ihdr(data),
            b"PLTE" if self.layout.is_some_and(|l| l.indexed()) => {
                if data.len() > MAX_PALETTE_BYTES {
                    return Err(broken(format!("a palette of {} bytes", data.len())));
                }
                self.palette = Some(Palette::from_rgb(data));
                Ok(())
            }
            kind => check_length(kind, data.len(), self.layout),
        }
    }

    fn read_ihdr(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let [w0, w1, w2, w3, h0, h1, h2, h3, depth, color, _compression, filter, interlace, ..] = *data else {
            return Err(truncated("IHDR is too short"));
        };
        (self.width, self.height) = (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
        // An illegal pair leaves what an earlier IHDR said, as in Pillow.
        self.layout = Layout::new(depth, color).or(self.layout);
        self.interlaced |= interlace != 0;
        if filter != 0 { Err(broken(format!("filter method {filter}"))) } else { Ok(()) }
    }
}

/// Chunks whose contents do not matter here must still have the length that Pillow reads from them.
fn check_length(kind: &[u8; 4], length: usize, layout: Option<Layout>) -> Result<(), DecodeError> {
    let least = match kind {
        b"gAMA" => 4,
        b"cHRM" => 32,
        b"sRGB" => 1,
        b"pHYs" => 9,
        b"acTL" => 8,
        b"fcTL" => 26,
        b"tRNS" => layout.map_or(0, |l| l.transparency_bytes()),
        _ => 0,
    };
    if length < least {
        return Err(broken(format!("chunk {} of {length} bytes, at least {least} expected", kind.escape_ascii())));
    }
    Ok(())
}

/// A chunk's head; its data begins at `start`.
struct Head {
    kind: [u8; 4],
    start: usize,
    length: usize,
}

/// Walks the chunks of a file.
struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    /// Reads the next head and stands at its data.
    fn next_head(&mut self) -> Result<Head, DecodeError> {
        let length = u32_be(self.bytes, self.at).ok_or_else(|| truncated("the data ends between chunks"))?;
        let kind = self.bytes.get(self.at + 4..self.at + 8).ok_or_else(|| truncated("the data ends between chunks"))?;
        let kind: [u8; 4] = kind.try_into().unwrap_or_default();
        if !kind.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            return Err(broken(format!("chunk name {}", kind.escape_ascii())));
        }
        self.at += 8;
        Ok(Head { kind, start: self.at, length: length as usize })
    }

    /// The chunk's data, after its CRC has been checked; stands behind it.
    fn checked_data(&mut self, chunk: &Head) -> Result<&'a [u8], DecodeError> {
        let data = self.data(chunk)?;
        let mut crc = Crc::new();
        crc.update(&chunk.kind);
        crc.update(data);
        let stored = u32_be(self.bytes, self.at).ok_or_else(|| truncated("the data ends inside a checksum"))?;
        if stored != crc.sum() {
            return Err(broken(format!("wrong checksum of chunk {}", chunk.kind.escape_ascii())));
        }
        self.skip_crc();
        Ok(data)
    }

    /// The chunk's data; stands at its CRC.
    fn data(&mut self, chunk: &Head) -> Result<&'a [u8], DecodeError> {
        let end = chunk.start.checked_add(chunk.length);
        let data = end.and_then(|end| self.bytes.get(chunk.start..end));
        let data = data.ok_or_else(|| truncated("the data ends inside a chunk"))?;
        self.at = chunk.start + chunk.length;
        Ok(data)
    }

    fn skip_crc(&mut self) {
        self.at = self.at.saturating_add(4).min(self.bytes.len());
    }
}

/// The contents of consecutive IDAT chunks.
struct ImageData<'a> {
    chunks: Chunks<'a>,
    /// Bytes of the current IDAT chunk that have not been handed out.
    left: usize,
}

impl<'a> ImageData<'a> {
    /// The next block of compressed bytes; `None` at the end of the file or of the last IDAT chunk.
    fn next_block(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        while self.left == 0 {
            self.chunks.skip_crc();
            let head = self.chunks.next_head()?;
            if !matches!(&head.kind, b"IDAT" | b"DDAT") {
                return Ok(None);
            }
            self.left = head.length;
        }
        let rest = &self.chunks.bytes[self.chunks.at..];
        let block = &rest[..self.left.min(BLOCK_BYTES).min(rest.len())];
        self.left -= self.left.min(BLOCK_BYTES);
        self.chunks.at += block.len();
        Ok(if block.is_empty() { None } else { Some(block) })
    }

    /// Checks what follows the picture: whole chunks until IEND, the end of the file, or something that is no chunk.
    fn check_rest(mut self, layout: Option<Layout>) -> Result<(), DecodeError> {
        self.chunks.at = self.chunks.at.saturating_add(self.left).min(self.chunks.bytes.len());
        loop {
            self.chunks.skip_crc();
            let Ok(head) = self.chunks.next_head() else { return Ok(()) };
            if &head.kind == b"IEND" {
                return Ok(());
            }
            let data = self.chunks.data(&head)?;
            check_length(&head.kind, data.len(), layout)?;
        }
    }
}
