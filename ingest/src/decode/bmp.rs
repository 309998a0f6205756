//! BMP: headers of 12 to 124 bytes, 1 to 32 bits per pixel, bit fields in the layouts that Pillow knows, run lengths.
//!
//! Warnings count what Pillow passes over: a file shorter than its header says, and a palette cut off by the file's end.

use super::bytes::{u16_le, u32_le};
use super::gate::{Gate, plane_bytes};
use super::palette::Palette;
use super::{DecodeError, Format, RgbImage, reserve};

const FILE_HEADER_BYTES: usize = 14;
// Values of `biCompression`.
const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BITFIELDS: u32 = 3;

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::Bmp, what)
}

fn unsupported(what: impl Into<String>) -> DecodeError {
    DecodeError::unsupported(Format::Bmp, what)
}

pub(super) fn decode(bytes: &[u8], gate: &mut Gate<'_>, image: &mut RgbImage) -> Result<(), DecodeError> {
    let header = Header::read(bytes)?;
    let indices_bytes = plane_bytes(header.width, header.height, u64::from(header.is_run_length()));
    let rgb_bytes = gate.admit(header.width, header.height, indices_bytes)?.rgb_bytes;
    let coding = header.coding(bytes)?;
    let data = bytes.get(header.data_at(bytes)..).unwrap_or_default();
    let (width, height) = (header.width as usize, header.height as usize);
    reserve(&mut image.pixels, rgb_bytes)?;
    let indices;
    let row_bytes = coding.row_bytes(width);
    let (data, stride) = if header.is_run_length() {
        indices = run_lengths(data, width, height, header.compression == RLE4, header.data_at(bytes))?;
        (&indices[..], width)
    } else {
        (data, (width * usize::from(header.bits)).div_ceil(32) * 4)
    };
    if row_bytes > stride {
        return Err(unsupported("a gray palette with fewer bits than it needs"));
    }
    for y in 0..height {
        let stored = if header.top_down { y } else { height - 1 - y };
        let start = stored * stride;
        let row = data.get(start..start + row_bytes).ok_or_else(|| truncated("the pixel data ends too early"))?;
        coding.append_rgb(row, width, &mut image.pixels);
    }
    (image.width, image.height) = (header.width, header.height);
    image.warnings = u32::from(header.is_longer_than(bytes)) + u32::from(header.palette_is_cut(bytes));
    Ok(())
}

/// What the file says about itself.
struct Header {
    size: usize,
    width: u32,
    height: u32,
    top_down: bool,
    bits: u16,
    compression: u32,
    colors: u64,
    /// Bytes of a palette entry.
    entry_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Header, DecodeError> {
        let incomplete = || truncated("the header is incomplete");
        let size = u32_le(bytes, FILE_HEADER_BYTES).ok_or_else(incomplete)? as usize;
        if !matches!(size, 12 | 40 | 52 | 56 | 64 | 108 | 124) {
            return Err(unsupported(format!("a header of {size} bytes")));
        }
        let info = bytes.get(FILE_HEADER_BYTES..FILE_HEADER_BYTES + size).ok_or_else(incomplete)?;
        let half = |at| u16_le(info, at).ok_or_else(incomplete);
        let word = |at| u32_le(info, at).ok_or_else(incomplete);
        let mut header = if size == 12 {
            let (width, height) = (u32::from(half(4)?), u32::from(half(6)?));
            Header {
                size,
                width,
                height,
                top_down: false,
                bits: half(10)?,
                compression: RAW,
                colors: 0,
                entry_bytes: 3,
            }
        } else {
            let top_down = info[11] == 0xFF; // Pillow's test for a negative height
            let height = if top_down { word(8)?.wrapping_neg() } else { word(8)? };
            let (bits, compression, colors) = (half(14)?, word(16)?, u64::from(word(32)?));
            Header { size, width: word(4)?, height, top_down, bits, compression, colors, entry_bytes: 4 }
        };
        if !matches!(header.bits, 1 | 4 | 8 | 16 | 24 | 32) {
            return Err(unsupported(format!("{} bits per pixel", header.bits)));
        }
        if header.colors == 0 {
            header.colors = 1 << header.bits;
        }
        Ok(header)
    }

    /// Where the header's own fields end; three masks follow a short header with bit fields.
    fn end(&self) -> usize {
        let masks = if self.compression == BITFIELDS && self.size < 52 { 12 } else { 0 };
        FILE_HEADER_BYTES + self.size + masks
    }

    fn stored_offset(&self, bytes: &[u8]) -> usize {
        u32_le(bytes, 10).unwrap_or(0) as usize
    }

    /// Where the pixel data begins. Some writers forget the palette in their offset.
    fn data_at(&self, bytes: &[u8]) -> usize {
        let palette = if self.bits <= 8 { self.entry_bytes * self.colors.min(65536) as usize } else { 0 };
        match self.stored_offset(bytes) {
            0 => self.end() + palette,
            offset if offset == FILE_HEADER_BYTES + self.size && self.bits <= 8 => offset + palette,
            offset => offset,
        }
    }

    /// Whether the file header states more bytes than there are.
    fn is_longer_than(&self, bytes: &[u8]) -> bool {
        u32_le(bytes, 2).is_some_and(|stated| stated as usize > bytes.len())
    }

    fn palette_is_cut(&self, bytes: &[u8]) -> bool {
        self.bits <= 8 && (bytes.len() as u64) < self.end() as u64 + self.entry_bytes as u64 * self.colors
    }

    fn is_run_length(&self) -> bool {
        matches!(self.compression, RLE8 | RLE4)
    }

    fn coding(&self, bytes: &[u8]) -> Result<Coding, DecodeError> {
        match (self.compression, self.bits) {
            (RAW | RLE8 | RLE4, 1 | 4 | 8) => self.palette(bytes),
            (RAW, 16) => Ok(Coding::Rgb555),
            (RAW, 24) => Ok(Coding::Bytes { step: 3, order: [2, 1, 0] }),
            (RAW, 32) => Ok(Coding::Bytes { step: 4, order: [2, 1, 0] }),
            (BITFIELDS, _) => self.bit_fields(bytes),
            (other, bits) => Err(unsupported(format!("compression {other} with {bits} bits per pixel"))),
        }
    }

    fn palette(&self, bytes: &[u8]) -> Result<Coding, DecodeError> {
        if self.colors > 65536 {
            return Err(unsupported(format!("a palette of {} colours", self.colors)));
        }
        let start = self.end().min(bytes.len());
        let end = (start + self.entry_bytes * self.colors as usize).min(bytes.len());
        let entries = &bytes[start..end];
        let bits = if self.is_run_length() { 8 } else { self.bits as u8 };
        if !self.is_ramp(entries) {
            if entries.len() / self.entry_bytes > 256 {
                return Err(unsupported(format!("a palette of {} colours", self.colors)));
            }
            return Ok(Coding::Indexed { bits, palette: Box::new(Palette::from_bgr(entries, self.entry_bytes)) });
        }
        // Pillow then reads one byte per pixel or, with up to two colours, one bit, independent of the header.
        if self.colors > 2 {
            return Ok(Coding::Indexed { bits: 8, palette: Box::new(Palette::gray()) });
        }
        let bits = if self.is_run_length() { 8 } else { 1 };
        Ok(Coding::Indexed { bits, palette: Box::new(Palette::bilevel()) })
    }

    /// Black and white, or the gray ramp.
    fn is_ramp(&self, entries: &[u8]) -> bool {
        let colors = self.colors as usize;
        // Of more than 256 grays Pillow compares the low byte.
        let gray = |i: usize| if colors == 2 { i * 255 } else { i & 255 };
        let complete = entries.len() >= self.entry_bytes * (colors - 1) + 3;
        complete
            && entries
                .chunks(self.entry_bytes)
                .take(colors)
                .enumerate()
                .all(|(i, e)| e[..3].iter().all(|&v| usize::from(v) == gray(i)))
    }

    fn bit_fields(&self, bytes: &[u8]) -> Result<Coding, DecodeError> {
        // The masks stand 40 bytes into the header, or after it: the same place.
        let first = FILE_HEADER_BYTES + 40;
        let mask = |i: usize| u32_le(bytes, first + 4 * i).ok_or_else(|| truncated("the bit masks are incomplete"));
        let rgb = [mask(0)?, mask(1)?, mask(2)?];
        let alpha = if self.size >= 56 { mask(3)? } else { 0 };
        let order = |order| Ok(Coding::Bytes { step: 4, order });
        match (self.bits, rgb, alpha) {
            (32, [0xFF_0000, 0xFF00, 0xFF], 0 | 0xFF00_0000) | (32, [0, 0, 0], 0) => order([2, 1, 0]),
            (32, [0xFF00_0000, 0xFF_0000, 0xFF00], 0 | 0xFF) => order([3, 2, 1]),
            (32, [0xFF00_0000, 0xFF00, 0xFF], 0 | 0xFF_0000) => order([3, 1, 0]),
            (32, [0xFF, 0xFF00, 0xFF_0000], 0xFF00_0000) => order([0, 1, 2]),
            (24, [0xFF_0000, 0xFF00, 0xFF], _) => Ok(Coding::Bytes { step: 3, order: [2, 1, 0] }),
            (16, [0xF800, 0x7E0, 0x1F], _) => Ok(Coding::Rgb565),
            (16, [0x7C00, 0x3E0, 0x1F], _) => Ok(Coding::Rgb555),
            _ => Err(unsupported(format!("bit fields {rgb:x?} with {} bits per pixel", self.bits))),
        }
    }
}

/// How a row is stored.
enum Coding {
    /// Palette indices of 1, 4 or 8 bits.
    Indexed { bits: u8, palette: Box<Palette> },
    /// Whole bytes: `order` are the places of R, G, B within a pixel of `step` bytes.
    Bytes { step: usize, order: [usize; 3] },
    /// 5 bits each.
    Rgb555,
    /// 5, 6 and 5 bits.
    Rgb565,
}

impl Coding {
    /// Bytes of a row of `width` pixels, without padding.
    fn row_bytes(&self, width: usize) -> usize {
        match self {
            Coding::Indexed { bits, .. } => (width * usize::from(*bits)).div_ceil(8),
            Coding::Bytes { step, .. } => width * step,
            Coding::Rgb555 | Coding::Rgb565 => width * 2,
        }
    }

    fn append_rgb(&self, row: &[u8], width: usize, out: &mut Vec<u8>) {
        match self {
            Coding::Indexed { bits: 8, palette } => palette.extend(out, &row[..width]),
            Coding::Indexed { bits, palette } => {
                let mask = (1u8 << bits) - 1;
                let slots = |byte: u8| (0..8 / bits).rev().map(move |slot| (byte >> (slot * bits)) & mask);
                out.extend(row.iter().flat_map(|&byte| slots(byte)).take(width).flat_map(|i| palette.color(i)));
            }
            Coding::Bytes { step, order: [r, g, b] } => {
                out.extend(row.chunks_exact(*step).flat_map(|p| [p[*r], p[*g], p[*b]]));
            }
            Coding::Rgb555 => out.extend(words(row).flat_map(|v| [five(v >> 10), five(v >> 5), five(v)])),
            Coding::Rgb565 => out.extend(words(row).flat_map(|v| [five(v >> 11), six(v >> 5), five(v)])),
        }
    }
}

fn words(row: &[u8]) -> impl Iterator<Item = u16> {
    row.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]]))
}

fn five(v: u16) -> u8 {
    ((v & 31) * 255 / 31) as u8
}

fn six(v: u16) -> u8 {
    ((v & 63) * 255 / 63) as u8
}

/// Expands run lengths to one byte per pixel, with Pillow's tolerances. `offset` is the byte offset of the data in the file:
/// absolute runs are aligned to even offsets.
fn run_lengths(
    data: &[u8],
    width: usize,
    height: usize,
    four_bits: bool,
    offset: usize,
) -> Result<Vec<u8>, DecodeError> {
    let total = width * height;
    let mut out: Vec<u8> = Vec::new();
    out.try_reserve_exact(total).map_err(|_| DecodeError::OutOfMemory { bytes: total })?;
    let (mut at, mut x) = (0, 0);
    while out.len() < total {
        let Some(&[count, value]) = data.get(at..at + 2) else { break };
        at += 2;
        match (count, value) {
            (1.., _) => {
                let count = usize::from(count).min(width.saturating_sub(x));
                let pair = if four_bits { [value >> 4, value & 15] } else { [value; 2] };
                out.extend((0..count).map(|i| pair[i % 2]));
                x += count;
            }
            (0, 0) => {
                out.resize(out.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some(&[right, up]) = data.get(at..at + 2) else { break };
                at += 2;
                let skip = usize::from(right) + usize::from(up) * width;
                out.resize((out.len() + skip).min(total), 0);
                x = out.len() % width;
            }
            (0, run) => {
                let count = usize::from(run).min(total - out.len());
                let bytes = if four_bits { count.div_ceil(2) } else { count };
                let Some(run_data) = data.get(at..at + bytes) else { break };
                at += bytes;
                if four_bits {
                    out.extend(run_data.iter().flat_map(|b| [b >> 4, b & 15]).take(count));
                } else {
                    out.extend_from_slice(run_data);
                }
                x += usize::from(run);
                at += (offset + at) % 2;
            }
        }
    }
    if out.len() < total {
        return Err(truncated("the run lengths end too early"));
    }
    out.truncate(total);
    Ok(out)
}
