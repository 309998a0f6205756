//! What the chunks of a PNG file say, and what Pillow demands of them: lengths, an animation's frames, bounds on texts.

use super::DecodeError;
use super::bytes::u32_be;
use super::palette::Palette;
use super::png_chunks::{broken, truncated};
use super::png_rows::Layout;
use super::png_text;

/// Pillow keeps 256 colours; bytes of an incomplete further one do no harm.
const MAX_PALETTE_BYTES: usize = 3 * 256 + 2;

/// All texts together, in characters.
const MAX_TEXT_CHARS: usize = 64 << 20;

/// Where the image data belongs in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Area {
    /// Whether its rows, one after the other, are the whole picture of this size.
    pub(super) fn appends(self, (width, height): (u32, u32), interlaced: bool) -> bool {
        !interlaced && (self.width, self.height) == (width, height)
    }
}

/// The sum of the chunks read so far.
#[derive(Default)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) layout: Option<Layout>,
    pub(super) interlaced: bool,
    pub(super) palette: Option<Palette>,
    /// The first frame of an animation.
    frame: Option<Area>,
    /// Frames that acTL announces.
    frames: Option<u32>,
    /// The last number of the animation's chunks.
    sequence: Option<u32>,
    text_chars: usize,
    /// tRNS makes one index of the palette transparent, and leaves the others opaque.
    one_transparent_index: bool,
}

impl Header {
    /// Reads any chunk but IDAT and IEND.
    pub(super) fn read(&mut self, kind: &[u8; 4], data: &[u8]) -> Result<(), DecodeError> {
        check_length(kind, data.len(), self.layout)?;
        match kind {
            b"IHDR" => self.read_ihdr(data),
            b"PLTE" if self.layout.is_some_and(Layout::indexed) => {
                if data.len() > MAX_PALETTE_BYTES {
                    return Err(broken(format!("a palette of {} bytes", data.len())));
                }
                self.palette = Some(Palette::from_rgb(data));
                Ok(())
            }
            b"tRNS" if self.layout.is_some_and(Layout::indexed) => {
                self.one_transparent_index = is_one_index(data);
                Ok(())
            }
            b"acTL" => {
                self.read_animation(data);
                Ok(())
            }
            b"fcTL" => self.read_frame(data),
            b"fdAT" => self.read_sequence(data),
            _ => {
                self.text_chars += png_text::check(kind, data)?;
                if self.text_chars > MAX_TEXT_CHARS { Err(broken("too much text")) } else { Ok(()) }
            }
        }
    }

    /// The part of the picture that the image data fills.
    pub(super) fn area(&self) -> Result<Area, DecodeError> {
        let whole = Area { left: 0, top: 0, width: self.width, height: self.height };
        match self.frame {
            None => Ok(whole),
            Some(frame) if frame.width > 0 && frame.height > 0 && fits(frame, self.width, self.height) => Ok(frame),
            Some(_) => Err(broken("a frame that is empty or lies outside the picture")),
        }
    }

    /// Whether other frames follow the picture, which begins in a chunk of this kind.
    pub(super) fn is_animated(&self, kind: &[u8; 4]) -> bool {
        // A picture before the first frame is a separate frame.
        self.frames.is_some_and(|n| n > 1 || (kind == b"IDAT" && self.frame.is_none()))
    }

    /// What Pillow stumbles over when it converts the picture, whose palette stood before the image data or nowhere.
    pub(super) fn check_transparency(&self, has_palette: bool) -> Result<(), DecodeError> {
        if self.one_transparent_index && !has_palette {
            return Err(broken("a transparent index without a palette"));
        }
        Ok(())
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

    /// A second acTL takes the first one back.
    fn read_animation(&mut self, data: &[u8]) {
        let announced = u32_be(data, 0).filter(|n| (1..=1 << 31).contains(n));
        self.frames = if self.frames.is_some() { None } else { announced };
    }

    fn read_frame(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let field = |at| u32_be(data, at).ok_or_else(|| truncated("fcTL is too short"));
        let number = field(0)?;
        if number != self.sequence.map_or(0, |last| last.wrapping_add(1)) {
            return Err(broken("the chunks of the animation are not in order"));
        }
        self.sequence = Some(number);
        let frame = Area { left: field(12)?, top: field(16)?, width: field(4)?, height: field(8)? };
        if !fits(frame, self.width, self.height) {
            return Err(broken("a frame outside the picture"));
        }
        self.frame = Some(frame);
        Ok(())
    }

    fn read_sequence(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let number = u32_be(data, 0).ok_or_else(|| truncated("fdAT is too short"))?;
        if self.sequence.and_then(|last| last.checked_add(1)) != Some(number) {
            return Err(broken("the chunks of the animation are not in order"));
        }
        self.sequence = Some(number);
        Ok(())
    }
}

/// One zero among 255s; Pillow's pattern allows a line feed at the end.
fn is_one_index(transparency: &[u8]) -> bool {
    let values = transparency.strip_suffix(b"\n").unwrap_or(transparency);
    values.iter().filter(|v| **v != 255).eq([&0])
}

fn fits(frame: Area, width: u32, height: u32) -> bool {
    let inside = |start: u32, length: u32, side: u32| u64::from(start) + u64::from(length) <= u64::from(side);
    inside(frame.left, frame.width, width) && inside(frame.top, frame.height, height)
}

/// Chunks whose contents do not matter here must still have the length that Pillow reads from them.
fn check_length(kind: &[u8; 4], length: usize, layout: Option<Layout>) -> Result<(), DecodeError> {
    let least = match kind {
        b"gAMA" | b"fdAT" => 4,
        b"cHRM" => 32,
        b"sRGB" => 1,
        b"pHYs" => 9,
        b"acTL" => 8,
        b"fcTL" => 26,
        b"tRNS" => layout.map_or(0, Layout::transparency_bytes),
        _ => 0,
    };
    if length < least {
        return Err(broken(format!("chunk {} of {length} bytes, at least {least} expected", kind.escape_ascii())));
    }
    Ok(())
}
