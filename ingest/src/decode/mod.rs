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
mod exif;
mod fault;
mod gate;
mod gif;
mod jpeg;
mod jpeg_scans;
mod jpeg_segments;
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
pub use exif::exif_orientation;
use gate::Gate;
pub use jpeg::jpeg_simd;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
pub(crate) use window::{Picture, decode_window_into};

/// Pillow's limit against decompression bombs, in pixels: twice its `MAX_IMAGE_PIXELS`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Scans of one JPEG file that are still decoded. Real progressive files have about ten; each costs a pass over the picture.
const MAX_JPEG_SCANS: u32 = 500;

/// So many scans are decoded of a JPEG file with [`MAX_PIXELS`]; of smaller pictures more, in proportion.
const MAX_SCANS_OF_THE_LARGEST: u64 = 16;

/// Memory that decoding one file may take: below a gibibyte, with the rest of the process.
const MAX_DECODE_BYTES: u64 = 960 << 20;

/// Which entropy decoder takes JPEG files. Pixels, warnings and verdicts are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum JpegEntropy {
    /// For sound files of one scan the one of this crate (`csrc/huffman.c`), which lets pictures be decoded as far as they are
    /// needed; libjpeg's for all others.
    #[default]
    Own,
    /// libjpeg's for all files, and always the whole picture. Slower; there for comparisons.
    Libjpeg,
}

/// What one file may cost, and how it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest accepted width x height, in pixels.
    pub max_pixels: u64,
    /// Largest accepted number of scans in a JPEG file. Of large pictures there may be fewer: pixels times scans must not
    /// exceed 16 x [`MAX_PIXELS`], unless there are no more than 16 scans.
    pub max_jpeg_scans: u32,
    /// Most memory that decoding may take, the picture itself included, in bytes. Only progressive JPEG files, lossless or
    /// transparent WebP files and turned pictures of more than a hundred million pixels take as much as the default, and PNG
    /// files of one or two rows of more than fifty million.
    pub max_decode_bytes: u64,
    /// The entropy decoder for JPEG files.
    pub jpeg_entropy: JpegEntropy,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_pixels: MAX_PIXELS,
            max_jpeg_scans: MAX_JPEG_SCANS,
            max_decode_bytes: MAX_DECODE_BYTES,
            jpeg_entropy: JpegEntropy::default(),
        }
    }
}

impl Limits {
    /// Scans that a JPEG file of this size may have.
    fn max_scans(&self, width: u32, height: u32) -> u32 {
        let pixels = (u64::from(width) * u64::from(height)).max(1);
        let by_pixels = (MAX_SCANS_OF_THE_LARGEST * MAX_PIXELS / pixels).max(MAX_SCANS_OF_THE_LARGEST);
        u32::try_from(by_pixels).unwrap_or(u32::MAX).min(self.max_jpeg_scans)
    }

    /// Checks a size that a header claims, and returns the bytes that it takes as RGB.
    fn check(&self, width: u32, height: u32) -> Result<usize, DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(DecodeError::Empty { width, height });
        }
        if pixels > self.max_pixels {
            return Err(DecodeError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        let too_large = || DecodeError::TooManyPixels { width, height, limit: (isize::MAX / 3) as u64 };
        pixels.checked_mul(3).and_then(|b| isize::try_from(b).ok()).map(|b| b as usize).ok_or_else(too_large)
    }
}

/// A decoded picture: 8-bit RGB, row-major, `height * width * 3` bytes without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`, 0 to 255.
    pub pixels: Vec<u8>,
    /// Complaints about data that was decoded all the same, as Pillow decodes it. 0 for a sound file.
    ///
    /// JPEG: the library's warnings (corrupt entropy-coded data, bytes before a marker), a missing end marker. PNG: a wrong
    /// or missing checksum of image data, too few rows, a file that does not end with IEND. GIF: stray bytes between blocks,
    /// a frame that sticks out of the canvas, image data without its end. BMP: a file or palette shorter than the header
    /// says. libwebp has none: it takes a WebP file for sound or for bad.
    pub warnings: u32,
}

/// A file format that this crate decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Starts with `FF D8 FF`.
    Jpeg,
    /// Starts with the PNG signature.
    Png,
    /// Starts with `GIF87a` or `GIF89a`.
    Gif,
    /// A RIFF file of type `WEBP`.
    WebP,
    /// Starts with `BM`.
    Bmp,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::Gif => "GIF",
            Format::WebP => "WebP",
            Format::Bmp => "BMP",
        })
    }
}

impl Format {
    /// Recognises the format by a file's first bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<Format> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Format::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Some(Format::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
            [b'B', b'M', ..] => Some(Format::Bmp),
            _ => None,
        }
    }
}

/// Why a file is not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file has no bytes.
    #[error("empty file")]
    NoBytes,
    /// The first bytes are of no known format.
    #[error("not a JPEG, PNG, GIF, WebP or BMP file: starts with {start}")]
    Unrecognised {
        /// The first bytes, printable or in hexadecimal.
        start: String,
    },
    /// The data ends before the picture does.
    #[error("truncated {format} file: {what}")]
    Truncated {
        /// The file's format.
        format: Format,
        /// What was being read when the data ended.
        what: &'static str,
    },
    /// The data contradicts itself.
    #[error("broken {format} file: {what}")]
    Broken {
        /// The file's format.
        format: Format,
        /// What is wrong.
        what: String,
    },
    /// A legal file of a kind that is not decoded (nor by Pillow).
    #[error("unsupported {format} file: {what}")]
    Unsupported {
        /// The file's format.
        format: Format,
        /// The feature.
        what: String,
    },
    /// A picture without pixels.
    #[error("empty picture: {width} x {height} pixels")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// More pixels than [`Limits::max_pixels`].
    #[error("{width} x {height} pixels are more than the limit of {limit}: a decompression bomb?")]
    TooManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// A size that is of no use to whoever asked for the picture.
    #[error("{reason}")]
    NoUse {
        /// Why.
        reason: String,
    },
    /// Decoding takes more than [`Limits::max_decode_bytes`].
    #[error(
        "{width} x {height} pixels take {bytes} bytes of memory to decode, more than the limit of {limit}: a decompression bomb?"
    )]
    TooMuchMemory {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that decoding takes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Decoding takes more than [`memory_budget`](crate::memory_budget).
    #[error(
        "{width} x {height} pixels take {bytes} bytes of memory to decode, more than the {budget} that all threads have together; give more with --memory"
    )]
    OverBudget {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that decoding takes.
        bytes: u64,
        /// The budget, in bytes.
        budget: u64,
    },
    /// The decoder panicked: a defect of this program, not of the file.
    #[error("internal error: {reason}")]
    Internal {
        /// The panic's message.
        reason: String,
    },
    /// The system has no memory for the picture.
    #[error("no memory for {bytes} bytes of pixels")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
}

impl DecodeError {
    fn truncated(format: Format, what: &'static str) -> DecodeError {
        DecodeError::Truncated { format, what }
    }

    fn broken(format: Format, what: impl Into<String>) -> DecodeError {
        DecodeError::Broken { format, what: what.into() }
    }

    fn unsupported(format: Format, what: impl Into<String>) -> DecodeError {
        DecodeError::Unsupported { format, what: what.into() }
    }
}

/// Decodes a JPEG, PNG, GIF (first frame), WebP (first frame) or BMP file to RGB.
///
/// # Errors
/// [`DecodeError`], one line in words, for everything that Pillow rejects, for a picture beyond `limits`, and for formats
/// that are not in the list. A panic of a decoder is an error too.
///
/// Waits for its share of the [memory budget](crate::memory_budget), and gives it back with the picture.
pub fn decode_rgb(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    decode_rgb_if(bytes, limits, &mut |_, _| Ok(()))
}

/// [`decode_rgb`] of a picture that `accept` has a use for: it is asked with the columns and rows that the header tells, before
/// pixels are decoded, and says why if it has none.
///
/// # Errors
/// [`DecodeError::NoUse`] with the reason of `accept`; as [`decode_rgb`].
pub fn decode_rgb_if(bytes: &[u8], limits: &Limits, accept: Accept<'_>) -> Result<RgbImage, DecodeError> {
    decode_whole(bytes, limits, accept, Place::default()).map(|(image, _)| image)
}

/// Columns and rows of the picture in a file, as its header tells them. Nothing is decoded: the rest may be damaged.
///
/// # Errors
/// As [`decode_rgb`], for what is wrong before the pixels.
pub fn picture_size(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), DecodeError> {
    let mut size = None;
    let mut note = |width, height| {
        size = Some((width, height));
        Err(String::new())
    };
    let refused = decode_whole(bytes, limits, &mut note, Place::default());
    match (size, refused) {
        (Some(size), _) => Ok(size),
        (None, Err(error)) => Err(error),
        (None, Ok((image, _))) => Ok((image.width, image.height)),
    }
}

/// Is asked about a picture's columns and rows; the error says why there is no use for it.
pub type Accept<'a> = &'a mut dyn FnMut(u32, u32) -> Result<(), String>;

/// A picture's memory: claimed already, or when its turn comes.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub claim: Option<Claim>,
    pub turn: Option<Turn>,
}

/// [`decode_rgb_if`], with the claim of the memory.
pub(crate) fn decode_whole(
    bytes: &[u8],
    limits: &Limits,
    accept: Accept<'_>,
    place: Place,
) -> Result<(RgbImage, Option<Claim>), DecodeError> {
    let decode = || {
        let mut image = RgbImage::default();
        let mut all = |width, height| accept(width, height).map(|()| None);
        let mut gate = Gate::new(limits, &mut all, 0, place.claim).in_turn(place.turn);
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

/// A zeroed buffer straight from the system, which hands out such memory untouched.
fn zeroed(bytes: usize) -> Result<Vec<u8>, DecodeError> {
    // `vec![0; n]` is the allocation that stays lazy, but it aborts when memory is short: ask first.
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| DecodeError::OutOfMemory { bytes })?;
    Ok(vec![0; bytes])
}
