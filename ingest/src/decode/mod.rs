//! Bytes of an image file to 8-bit RGB, as Pillow's `Image.open(f).convert("RGB")` makes it.
//!
//! Formats are recognised by content, never by name. No profile, gamma or EXIF orientation is applied. Each format has one module;
//! PNG, GIF and BMP are read by code of this crate because Pillow's tolerance is part of the contract (a PNG with a wrong
//! CRC on right data is good, one with a wrong Adler-32 is bad, a GIF's first frame is laid on a canvas of a particular
//! colour, 16-bit gray saturates), and general readers are stricter in some of these places and laxer in others.
//!
//! WebP is libwebp's, which is Pillow's too.
//!
//! Sizes found in a file are checked against [`Limits`] before anything is allocated for them, and memory is reserved
//! fallibly and touched only as rows are decoded: a tiny file that claims a huge picture costs no memory, unless libwebp, an
//! interlaced PNG with a palette or a JPEG file of several scans needs the whole of it first. What all threads decode at a
//! time is bounded by one budget (module `memory`).

mod bmp;
mod bytes;
mod error;
mod exif;
mod fault;
mod format;
mod gate;
mod gif;
mod jpeg;
mod jpeg_scans;
mod jpeg_segments;
mod limits;
mod lzw;
mod palette;
mod png;
mod png_chunks;
mod png_header;
mod png_rows;
mod png_text;
mod webp;
mod window;

use crate::memory::{Claim, Turn};
pub use error::DecodeError;
pub use exif::exif_orientation;
pub use format::Format;
use gate::Gate;
pub use jpeg::jpeg_simd;
pub use limits::{JpegEntropy, Limits, MAX_PIXELS};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
pub(crate) use window::{Picture, decode_window_into};

/// A decoded picture: 8-bit RGB, row-major, `height * width * 3` bytes without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns, in pixels.
    pub width: u32,
    /// Rows, in pixels.
    pub height: u32,
    /// `[height, width, 3]`, 0 to 255.
    pub pixels: Vec<u8>,
    /// Warnings about damaged data that was still decoded, as by Pillow. 0 for an intact file.
    ///
    /// JPEG: the library's warnings (corrupt entropy-coded data, bytes before a marker), a missing end marker. PNG: a wrong
    /// or missing checksum of image data, too few rows, a file that does not end with IEND. GIF: stray bytes between blocks,
    /// a frame that sticks out of the canvas, image data without its end. BMP: a file or palette shorter than the header
    /// says. libwebp has none: it either accepts or rejects a WebP file.
    pub warnings: u32,
}

/// Decodes a JPEG, PNG, GIF (first frame), WebP (first frame) or BMP file to RGB. Waits for its share of the [memory
/// budget](crate::memory_budget), and gives it back with the picture.
///
/// # Errors
/// [`DecodeError`], one line in words, for everything that Pillow rejects, for a picture beyond `limits`
/// ([`DecodeError::TooManyPixels`], [`DecodeError::TooMuchMemory`], [`DecodeError::OverBudget`]), and for other formats
/// ([`DecodeError::Unrecognised`]). A panic of a decoder is [`DecodeError::Internal`].
pub fn decode_rgb(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    decode_rgb_if(bytes, limits, &mut |_, _| Ok(()))
}

/// [`decode_rgb`] of a picture that `accept` wants: it gets the columns and rows of the header before pixels are decoded, and
/// says why if it refuses them.
///
/// # Errors
/// [`DecodeError::NoUse`] with the reason of `accept`; as [`decode_rgb`].
pub fn decode_rgb_if(bytes: &[u8], limits: &Limits, accept: Accept<'_>) -> Result<RgbImage, DecodeError> {
    decode_whole(bytes, limits, accept, Reservation::default()).map(|(image, _)| image)
}

/// Columns and rows of the picture in a file, as its header has them. Nothing is decoded: the rest may be damaged.
///
/// # Errors
/// As [`decode_rgb`], for what is wrong before the pixels.
pub fn picture_size(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), DecodeError> {
    let mut size = None;
    let mut note = |width, height| {
        size = Some((width, height));
        Err(String::new())
    };
    let refused = decode_whole(bytes, limits, &mut note, Reservation::default());
    match (size, refused) {
        (Some(size), _) => Ok(size),
        (None, Err(error)) => Err(error),
        (None, Ok((image, _))) => Ok((image.width, image.height)),
    }
}

/// Accepts a picture by its columns and rows, or says why it is not wanted.
pub type Accept<'a> = &'a mut dyn FnMut(u32, u32) -> Result<(), String>;

/// A picture's memory: claimed already, or when its turn comes.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    pub claim: Option<Claim>,
    pub turn: Option<Turn>,
}

/// [`decode_rgb_if`], with the claim of the memory.
pub(crate) fn decode_whole(
    bytes: &[u8],
    limits: &Limits,
    accept: Accept<'_>,
    reservation: Reservation,
) -> Result<(RgbImage, Option<Claim>), DecodeError> {
    let decode = || {
        let mut image = RgbImage::default();
        let mut all = |width, height| accept(width, height).map(|()| None);
        let mut gate = Gate::new(limits, &mut all, 0, reservation.claim).in_turn(reservation.turn);
        decode_rgb_into(bytes, &mut gate, &mut image).map(|()| (image, gate.claim))
    };
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|panic| Err(DecodeError::Internal { reason: panic_text(&*panic).to_owned() }))
}

/// [`decode_rgb`] into an image whose buffer is reused. On an error the image's contents mean nothing.
fn decode_rgb_into(bytes: &[u8], gate: &mut Gate<'_>, image: &mut RgbImage) -> Result<(), DecodeError> {
    fault::panic_on_request(bytes);
    image.pixels.clear();
    image.warnings = 0;
    match Format::of(bytes) {
        Some(Format::Jpeg) => {
            let scans_at = jpeg_segments::check(bytes)?;
            jpeg::decode_whole(bytes, scans_at, gate, image)
        }
        Some(Format::Png) => png::decode(bytes, gate, image),
        Some(Format::Gif) => gif::decode(bytes, gate, image),
        Some(Format::WebP) => webp::decode(bytes, gate, image),
        Some(Format::Bmp) => bmp::decode(bytes, gate, image),
        None if bytes.is_empty() => Err(DecodeError::NoBytes),
        None => Err(DecodeError::Unrecognised { start: describe_start(bytes) }),
    }
}

/// A panic's message, if it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

/// The first bytes in a form that fits into one line of a report.
fn describe_start(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(12)];
    match std::str::from_utf8(start) {
        Ok(text) if start.iter().all(|b| (0x20..0x7F).contains(b)) => format!("{text:?}"),
        _ => start.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
    }
}

/// Empties `pixels` and makes room for `bytes` without touching the memory.
fn reserve(pixels: &mut Vec<u8>, bytes: usize) -> Result<(), DecodeError> {
    pixels.clear();
    pixels.try_reserve_exact(bytes).map_err(|_| DecodeError::OutOfMemory { bytes })
}

/// Fills `pixels` with `bytes` zeros: its own memory where that is enough, else untouched memory from the system.
fn zero(pixels: &mut Vec<u8>, bytes: usize) -> Result<(), DecodeError> {
    pixels.clear();
    if pixels.capacity() >= bytes {
        pixels.resize(bytes, 0);
    } else {
        *pixels = zeroed(bytes)?;
    }
    Ok(())
}

/// A zeroed buffer from the system allocator, which returns fresh zero pages without writing to them.
fn zeroed(bytes: usize) -> Result<Vec<u8>, DecodeError> {
    // `vec![0; n]` is the allocation that stays lazy, but it aborts when memory is short: ask first.
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| DecodeError::OutOfMemory { bytes })?;
    Ok(vec![0; bytes])
}
