//! WebP, lossy and lossless; of an animation the first frame, on a black canvas.
//!
//! The container is read here, and only the first VP8 or VP8L bitstream goes to the decoder, as a file of its own: alpha is
//! dropped anyway, and the first frame of an animation is not blended with anything, as in libwebp's animation decoder,
//! which Pillow uses for every WebP file.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image_webp::WebPDecoder;

use super::bytes::u32_le;
use super::{DecodeError, Format, Limits, RgbImage, zeroed};

const RIFF_HEADER_BYTES: usize = 12;

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::WebP, what)
}

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::WebP, what)
}

pub(super) fn decode(bytes: &[u8], limits: &Limits, image: &mut RgbImage) -> Result<(), DecodeError> {
    let riff = u32_le(bytes, 4).ok_or_else(|| truncated("the header is incomplete"))? as usize;
    let end = riff.checked_add(8).filter(|end| *end <= bytes.len());
    let body = bytes.get(RIFF_HEADER_BYTES..end.ok_or_else(|| truncated("the data ends before the RIFF does"))?);
    let body = body.ok_or_else(|| broken("a RIFF too short for its header"))?;
    let frame = Frame::find(body)?;
    if let Some((width, height)) = frame.canvas {
        limits.check(width, height)?;
    }
    decode_bitstream(&frame, limits, image)?;
    match frame.canvas {
        Some(canvas) => place(canvas, frame.offset, image),
        None => Ok(()),
    }
}

/// The first image of the file.
struct Frame<'a> {
    kind: [u8; 4],
    data: &'a [u8],
    /// Size of the whole picture, if the file states it.
    canvas: Option<(u32, u32)>,
    /// Where the frame lies in it.
    offset: (u32, u32),
}

impl<'a> Frame<'a> {
    fn find(body: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
        let mut canvas = None;
        let mut animated = false;
        for chunk in (Chunks { bytes: body }) {
            let (kind, data) = chunk?;
            match &kind {
                b"VP8X" => {
                    let header: &[u8; 10] =
                        data.first_chunk().ok_or_else(|| truncated("the extended header is incomplete"))?;
                    animated = header[0] & 2 != 0;
                    canvas = Some((1 + u24(&header[4..]), 1 + u24(&header[7..])));
                }
                b"VP8 " | b"VP8L" if !animated => return Ok(Frame { kind, data, canvas, offset: (0, 0) }),
                b"ANMF" if animated => return Frame::in_animation(data, canvas),
                _ => {}
            }
        }
        Err(broken("no image in it"))
    }

    fn in_animation(data: &'a [u8], canvas: Option<(u32, u32)>) -> Result<Frame<'a>, DecodeError> {
        const FRAME_HEADER_BYTES: usize = 16;
        let (header, chunks) =
            data.split_at_checked(FRAME_HEADER_BYTES).ok_or_else(|| truncated("a frame's header is incomplete"))?;
        let offset = (2 * u24(header), 2 * u24(&header[3..]));
        for chunk in (Chunks { bytes: chunks }) {
            let (kind, data) = chunk?;
            if matches!(&kind, b"VP8 " | b"VP8L") {
                return Ok(Frame { kind, data, canvas, offset });
            }
        }
        Err(broken("a frame without image data"))
    }
}

/// A little-endian number of three bytes, which the caller knows to be there.
fn u24(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

/// The chunks of a RIFF body: name and data.
struct Chunks<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<([u8; 4], &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.bytes.split_first_chunk::<4>()?;
        let length = u32_le(rest, 0)? as usize;
        let Some(data) = length.checked_add(4).and_then(|end| rest.get(4..end)) else {
            self.bytes = &[];
            return Some(Err(truncated("the data ends inside a chunk")));
        };
        self.bytes = rest.get(4 + length + length % 2..).unwrap_or_default();
        Some(Ok((*kind, data)))
    }
}

/// Decodes the frame's bitstream into `image`.
fn decode_bitstream(frame: &Frame<'_>, limits: &Limits, image: &mut RgbImage) -> Result<(), DecodeError> {
    let mut file = Vec::with_capacity(frame.data.len() + 21);
    let padding = frame.data.len() % 2;
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&((12 + frame.data.len() + padding) as u32).to_le_bytes());
    file.extend_from_slice(b"WEBP");
    file.extend_from_slice(&frame.kind);
    file.extend_from_slice(&(frame.data.len() as u32).to_le_bytes());
    file.extend_from_slice(frame.data);
    file.resize(file.len() + padding, 0);
    // The decoder is meant to return errors only. Should it have a flaw, the file is bad and the job goes on.
    let decoded = catch_unwind(AssertUnwindSafe(|| run_decoder(&file, limits, image)));
    decoded.unwrap_or_else(|_| Err(broken("the decoder failed on it")))
}

fn run_decoder(file: &[u8], limits: &Limits, image: &mut RgbImage) -> Result<(), DecodeError> {
    let explain = |e: image_webp::DecodingError| match e {
        image_webp::DecodingError::IoError(_) => truncated("the image data ends too early"),
        other => broken(other.to_string()),
    };
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let rgb_bytes = limits.check(width, height)?;
    let has_alpha = decoder.has_alpha();
    image.pixels = zeroed(if has_alpha { rgb_bytes / 3 * 4 } else { rgb_bytes })?;
    decoder.read_image(&mut image.pixels).map_err(explain)?;
    if has_alpha {
        image.pixels = image.pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    }
    (image.width, image.height) = (width, height);
    Ok(())
}

/// Lays the frame on a black canvas, unless it fills it.
fn place(canvas: (u32, u32), offset: (u32, u32), image: &mut RgbImage) -> Result<(), DecodeError> {
    if canvas == (image.width, image.height) && offset == (0, 0) {
        return Ok(());
    }
    let fits = u64::from(offset.0) + u64::from(image.width) <= u64::from(canvas.0)
        && u64::from(offset.1) + u64::from(image.height) <= u64::from(canvas.1);
    if !fits {
        return Err(broken("a frame outside the picture"));
    }
    let stride = canvas.0 as usize * 3;
    let mut pixels = zeroed(stride * canvas.1 as usize)?;
    let row_bytes = image.width as usize * 3;
    let rows = pixels.chunks_exact_mut(stride).skip(offset.1 as usize);
    for (target, row) in rows.zip(image.pixels.chunks_exact(row_bytes)) {
        target[offset.0 as usize * 3..][..row_bytes].copy_from_slice(row);
    }
    *image = RgbImage { width: canvas.0, height: canvas.1, pixels, warnings: image.warnings };
    Ok(())
}
