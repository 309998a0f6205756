//! WebP, lossy and lossless; of an animation the first frame, on a black canvas.
//!
//! libwebp parses the file and decodes it, as it does for Pillow, so damaged files give the same result too. Pillow goes
//! through libwebp's animation decoder; its first frame is the frame's own pixels on a cleared canvas, not blended with
//! anything, and that is what is made here, without the animation decoder's two further canvases.

mod demux;

use super::gate::{Gate, plane_bytes};
use super::{DecodeError, Format, RgbImage, zero};
pub(super) use demux::Demuxer;
use demux::Frame;
use libwebp_sys::{
    VP8StatusCode, WEBP_CSP_MODE, WebPDecBuffer__bindgen_ty_1, WebPDecode, WebPDecoderConfig, WebPRGBABuffer,
};

/// Pillow looks no further into a file whose first chunk is another.
const FIRST_CHUNKS: [&[u8; 4]; 3] = [b"VP8 ", b"VP8L", b"VP8X"];

fn truncated(what: &'static str) -> DecodeError {
    DecodeError::truncated(Format::WebP, what)
}

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::broken(Format::WebP, what)
}

/// Takes a file apart.
pub(super) fn open(bytes: &[u8]) -> Result<Demuxer<'_>, DecodeError> {
    let first = bytes.get(12..16).ok_or_else(|| truncated("the header is incomplete"))?;
    if !FIRST_CHUNKS.iter().any(|kind| first == *kind) {
        return Err(broken(format!("it begins with a chunk {}", first.escape_ascii())));
    }
    Demuxer::new(bytes).ok_or_else(|| match super::bytes::u32_le(bytes, 4) {
        Some(riff) if (riff as usize).saturating_add(8) > bytes.len() => {
            truncated("the data ends before the RIFF does")
        }
        _ => broken("its chunks are not those of a picture"),
    })
}

pub(super) fn decode(bytes: &[u8], gate: &mut Gate<'_>, image: &mut RgbImage) -> Result<(), DecodeError> {
    let file = open(bytes)?;
    let (width, height) = file.canvas();
    let frame = file.first_frame().ok_or_else(|| broken("no image in it"))?;
    let rgb_bytes = gate.admit(width, height, plane_bytes(width, height, work_bytes_per_pixel(&frame)))?.rgb_bytes;
    // Alpha is dropped in the end, but it has to be decoded: its data may be bad.
    let channels = if frame.has_alpha() { 4 } else { 3 };
    let stride = width as usize * channels;
    zero(&mut image.pixels, rgb_bytes / 3 * channels)?;
    let (left, top) = frame.offset();
    let target = image.pixels.get_mut(top * stride + left * channels..).unwrap_or_default();
    decode_frame(&frame, target, stride)?;
    if channels == 4 {
        drop_alpha(&mut image.pixels);
    }
    (image.width, image.height) = (width, height);
    Ok(())
}

/// What libwebp allocates for a frame of the whole size, and the alpha channel of the output.
fn work_bytes_per_pixel(frame: &Frame<'_>) -> u64 {
    let (is_lossless, has_alpha) = (frame.data().starts_with(b"VP8L"), frame.has_alpha());
    match (is_lossless, has_alpha) {
        // Pixels of four bytes, from which the output is made.
        (true, _) => 4 + u64::from(has_alpha),
        // A plane of alpha, and the lossless decoder's pixels for it.
        (false, true) => 1 + 4 + 1,
        (false, false) => 0,
    }
}

/// Decodes into rows `stride` bytes apart: RGB, or RGBA if the frame has alpha.
fn decode_frame(frame: &Frame<'_>, target: &mut [u8], stride: usize) -> Result<(), DecodeError> {
    let mut config = WebPDecoderConfig::new().map_err(|()| broken("libwebp is of another version"))?;
    config.output.colorspace = if frame.has_alpha() { WEBP_CSP_MODE::MODE_RGBA } else { WEBP_CSP_MODE::MODE_RGB };
    config.output.is_external_memory = 1;
    let stride = i32::try_from(stride).map_err(|_| broken("rows too long"))?;
    let buffer = WebPRGBABuffer { rgba: target.as_mut_ptr(), stride, size: target.len() };
    config.output.u = WebPDecBuffer__bindgen_ty_1 { RGBA: buffer };
    let data = frame.data();
    // SAFETY: `data` is readable for its length. The output is the caller's, exclusively; libwebp checks the picture's
    // size against the buffer's size and stride before it writes.
    let status = unsafe { WebPDecode(data.as_ptr(), data.len(), &raw mut config) };
    match status {
        VP8StatusCode::VP8_STATUS_OK => Ok(()),
        VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY => Err(DecodeError::OutOfMemory { bytes: target.len() }),
        VP8StatusCode::VP8_STATUS_NOT_ENOUGH_DATA | VP8StatusCode::VP8_STATUS_SUSPENDED => {
            Err(truncated("the image data ends too early"))
        }
        VP8StatusCode::VP8_STATUS_INVALID_PARAM => Err(broken("a frame outside the picture")),
        _ => Err(broken("image data that cannot be decoded")),
    }
}

/// RGBA to RGB, in place.
fn drop_alpha(pixels: &mut Vec<u8>) {
    let count = pixels.len() / 4;
    for pixel in 0..count {
        pixels.copy_within(pixel * 4..pixel * 4 + 3, pixel * 3);
    }
    pixels.truncate(count * 3);
}
