//! The first frame of a GIF, laid on its canvas as Pillow lays it.
//!
//! Outside the frame the canvas has the transparent index's colour if the frame names one, else that of index 0. A colour
//! table that is the gray ramp is not a table to Pillow: the global one counts, and if that is none either, every index is its
//! own gray, also beyond the table's end.
//!
//! Warnings count what Pillow passes over: bytes between blocks that begin none, a frame that sticks out of the canvas, and
//! image data that the file's end cuts off after the last pixel.

use super::bytes::u16_le;
use super::gate::{Gate, plane_bytes};
use super::lzw::{Lzw, Step};
use super::palette::Palette;
use super::{DecodeError, Format, RgbImage, reserve, zeroed};

/// Signature and logical screen descriptor (GIF89a, sections 17 and 18).
const HEADER_BYTES: usize = 13;
const MAX_CODE_BITS: u8 = 12;

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::Gif, what)
}

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::Gif, what)
}

pub(super) fn decode(bytes: &[u8], gate: &mut Gate<'_>, image: &mut RgbImage) -> Result<(), DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let header = reader.take(HEADER_BYTES).ok_or_else(|| truncated("the header is incomplete"))?;
    let canvas = (read_u16(header, 6)?, read_u16(header, 8)?);
    let global = reader.color_table(header[10])?;
    let frame = Frame::find(&mut reader)?;
    // A frame that sticks out makes the canvas larger.
    let width = canvas.0.max(frame.x + frame.width);
    let height = canvas.1.max(frame.y + frame.height);
    let rgb_bytes = gate.admit(width, height, plane_bytes(width, height, 1))?.rgb_bytes;
    if frame.width == 0 || frame.height == 0 {
        return Err(broken("a frame without pixels"));
    }
    let (indices, ends_well) = frame.indices(width, height)?;
    reserve(&mut image.pixels, rgb_bytes)?;
    let palette = frame.colors.or(global).unwrap_or_else(Palette::gray);
    palette.extend(&mut image.pixels, &indices);
    (image.width, image.height) = (width, height);
    let complaints = [frame.after_junk, (width, height) != canvas, !ends_well];
    image.warnings = complaints.into_iter().map(u32::from).sum();
    Ok(())
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    u16_le(bytes, at).map(u32::from).ok_or_else(|| truncated("a size is incomplete"))
}

/// Takes bytes from the front of a file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// The colour table that `flags` announce, unless it is the gray ramp.
    fn color_table(&mut self, flags: u8) -> Result<Option<Palette>, DecodeError> {
        if flags & 0x80 == 0 {
            return Ok(None);
        }
        let entries = self.take(3 << ((flags & 7) + 1)).ok_or_else(|| truncated("a colour table is incomplete"))?;
        let is_gray = |colour: &[u8], level: usize| colour.iter().all(|&value| usize::from(value) == level);
        let is_ramp = entries.chunks_exact(3).enumerate().all(|(i, colour)| is_gray(colour, i));
        Ok((!is_ramp).then(|| Palette::from_rgb(entries)))
    }

    /// The next data sub-block; `None` for the terminator or the end of the file.
    fn sub_block(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        if length == 0 {
            return None;
        }
        let end = (self.at + length).min(self.bytes.len());
        let block = &self.bytes[self.at..end];
        self.at = end;
        Some(block)
    }
}

/// The first image of the file.
struct Frame<'a> {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    interlaced: bool,
    /// Its own colour table.
    colors: Option<Palette>,
    transparent: Option<u8>,
    code_bits: u8,
    blocks: &'a [u8],
    /// Bytes that begin no block stand before it.
    after_junk: bool,
}

impl<'a> Frame<'a> {
    /// Goes over the extensions to the first image descriptor.
    fn find(reader: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
        let mut transparent = None;
        let mut after_junk = false;
        loop {
            match reader.byte() {
                None | Some(b';') => return Err(broken("no image in it")),
                Some(b'!') => skip_extension(reader, &mut transparent)?,
                Some(b',') => return Frame::read(reader, transparent, after_junk),
                Some(_) => after_junk = true,
            }
        }
    }

    fn read(reader: &mut Reader<'a>, transparent: Option<u8>, after_junk: bool) -> Result<Frame<'a>, DecodeError> {
        let descriptor = reader.take(9).ok_or_else(|| truncated("the image descriptor is incomplete"))?;
        let colors = reader.color_table(descriptor[8])?;
        let code_bits = reader.byte().ok_or_else(|| truncated("no image data"))?;
        if code_bits > MAX_CODE_BITS {
            return Err(broken(format!("codes of {code_bits} bits")));
        }
        Ok(Frame {
            x: read_u16(descriptor, 0)?,
            y: read_u16(descriptor, 2)?,
            width: read_u16(descriptor, 4)?,
            height: read_u16(descriptor, 6)?,
            interlaced: descriptor[8] & 0x40 != 0,
            colors,
            transparent,
            code_bits,
            blocks: &reader.bytes[reader.at..],
            after_junk,
        })
    }

    /// Decodes onto a canvas of colour indices. The flag: whether the image data ends as it should.
    fn indices(&self, canvas_width: u32, canvas_height: u32) -> Result<(Vec<u8>, bool), DecodeError> {
        let stride = canvas_width as usize;
        let mut canvas = zeroed(stride * canvas_height as usize)?;
        if let Some(index @ 1..) = self.transparent {
            canvas.fill(index);
        }
        let mut lzw = Lzw::new(self.blocks, u32::from(self.code_bits));
        let mut cursor =
            Cursor { x: 0, y: 0, step: if self.interlaced { 8 } else { 1 }, pass: u8::from(self.interlaced) };
        let (left, top) = (self.x as usize, self.y as usize);
        loop {
            match lzw.step() {
                Step::End => return Err(truncated("the image data ends too early")),
                Step::Broken => return Err(broken("an impossible code in the image data")),
                Step::String => {}
            }
            for &index in lzw.reversed().iter().rev() {
                canvas[(top + cursor.y as usize) * stride + left + cursor.x as usize] = index;
                if !cursor.advance(self.width, self.height) {
                    return Ok((canvas, ends_well(lzw.blocks_left())));
                }
            }
        }
    }
}

/// Whether sub-blocks end with their terminator, and another block or the file's end mark follows.
fn ends_well(blocks: &[u8]) -> bool {
    let mut rest = Reader { bytes: blocks, at: 0 };
    loop {
        match rest.byte() {
            None => return false,
            Some(0) => return matches!(rest.byte(), Some(b',' | b'!' | b';')),
            Some(length) => rest.at += usize::from(length),
        }
    }
}

/// Reads one extension; a graphic control extension may name the transparent index.
///
/// Pillow reads a block, then blocks until there is none. A comment is done when its first block is missing. Of another
/// extension without any block the next ones are still read, from after the terminator, and so they are after a NETSCAPE
/// extension that ends before its loop count.
fn skip_extension(reader: &mut Reader<'_>, transparent: &mut Option<u8>) -> Result<(), DecodeError> {
    // Labels: GIF89a, sections 23, 24 and 26.
    const GRAPHIC_CONTROL: u8 = 249;
    const COMMENT: u8 = 254;
    const APPLICATION: u8 = 255;
    let label = reader.byte().ok_or_else(|| truncated("an extension is incomplete"))?;
    let Some(block) = reader.sub_block() else {
        while label != COMMENT && reader.sub_block().is_some() {}
        return Ok(());
    };
    if label == APPLICATION && block.starts_with(b"NETSCAPE2.0") {
        reader.sub_block();
    }
    if label == GRAPHIC_CONTROL {
        let flags = block.first().ok_or_else(|| truncated("an extension is incomplete"))?;
        if flags & 1 != 0 {
            *transparent = Some(*block.get(3).ok_or_else(|| truncated("an extension is incomplete"))?);
        }
        if block.len() < 3 {
            return Err(truncated("an extension is incomplete"));
        }
    }
    while reader.sub_block().is_some() {}
    Ok(())
}

/// Position of the next pixel of a frame.
struct Cursor {
    x: u32,
    y: u32,
    step: u32,
    /// Interlacing pass, 1 to 4; 0 without interlacing and in the last pass.
    pass: u8,
}

impl Cursor {
    /// Advances by one pixel; false when the frame is full.
    fn advance(&mut self, width: u32, height: u32) -> bool {
        self.x += 1;
        if self.x < width {
            return true;
        }
        self.x = 0;
        self.y += self.step;
        while self.y >= height {
            (self.y, self.step, self.pass) = match self.pass {
                1 => (4, self.step, 2),
                2 => (2, 4, 3),
                3 => (1, 2, 0),
                _ => return false,
            };
        }
        true
    }
}
