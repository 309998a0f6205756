//! JPEG through libjpeg-turbo's code (in `mozjpeg-sys`), called through `csrc/jpeg_shim.c`.
//!
//! islow DCT, fancy upsampling, no merged upsampling, no scaling: libjpeg's defaults and Pillow's. Corrupt entropy-coded
//! data is decoded as libjpeg decodes it, with its warnings counted.
//!
//! A file is decoded in one of two ways. Intact data of one scan are decoded by the entropy decoder of `csrc/huffman.c`, and
//! only the requested pixels (and a margin, so that they are the same as in the whole picture) are computed; all of
//! the data is read nevertheless. Whenever that meets anything unsound it decides nothing: libjpeg alone decodes the file
//! once more, all of it. So acceptance, warnings and pixels are libjpeg's in every case.
//!
//! A progressive file, or another of several scans, is decoded into coefficients of the whole picture first. What that takes
//! in memory and in passes over the picture is known from the header and from the markers (module `jpeg_scans`), and is
//! checked before.
//!
//! Where the data ends too early, Pillow's rule holds: the file is good if the decoder, which waits for more data when it
//! runs out, got as far as the last row. A file of one scan without its end marker is therefore good now and then, namely
//! when the last code was not looked up across the end.
//!
//! libjpeg has its inverse DCT twice, in SIMD code and in C. They agree on intact files; [`jpeg_simd`] says where they do
//! not, and which one is at work.

use super::gate::Gate;
use super::window::Picture;
use super::{DecodeError, Format, JpegEntropy, RgbImage, jpeg_scans, reserve};
use crate::resample::Region;
// Links libjpeg, which only the C shim calls.
use mozjpeg_sys as _;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr::{self, NonNull};

/// The opaque C object.
#[repr(C)]
struct RawJpeg {
    _private: [u8; 0],
}

/// `tg_jpeg_header` of the shim.
#[repr(C)]
#[derive(Default)]
struct Header {
    width: c_uint,
    height: c_uint,
    components: c_int,
    output_components: c_int,
    coefficient_bytes: u64,
}

/// `tg_jpeg_window` of the shim.
#[repr(C)]
#[derive(Clone, Copy)]
struct Window {
    left: c_uint,
    top: c_uint,
    width: c_uint,
    height: c_uint,
}

// The shim's functions never unwind and never let libjpeg jump out of them.
unsafe extern "C" {
    fn tg_jpeg_create() -> *mut RawJpeg;
    fn tg_jpeg_destroy(jpeg: *mut RawJpeg);
    fn tg_jpeg_open(jpeg: *mut RawJpeg, data: *const u8, len: usize, header: *mut Header) -> c_int;
    fn tg_jpeg_start(jpeg: *mut RawJpeg, max_scans: c_int, window: *mut Window) -> c_int;
    fn tg_jpeg_read_rows(jpeg: *mut RawJpeg, out: *mut u8, stride: usize, count: c_uint) -> c_int;
    fn tg_jpeg_finish(jpeg: *mut RawJpeg) -> c_int;
    fn tg_jpeg_warnings(jpeg: *const RawJpeg) -> c_uint;
    fn tg_jpeg_message(jpeg: *const RawJpeg) -> *const c_char;
    fn tg_jpeg_simd() -> c_int;
}

/// Statuses of the shim.
const OK: c_int = 0;
const TRUNCATED: c_int = 1;
const TOO_MANY_SCANS: c_int = 3;
const UNSOUND: c_int = 4;

/// Rows per request; between two requests the bytes written are accounted for.
const ROWS_PER_CALL: u32 = 64;

/// Whether JPEG files are decoded by the SIMD code of the JPEG library: it was compiled in, and this processor runs it.
///
/// On x86-64 it is compiled in if the assembler `nasm` was there when the library was built. Without it libjpeg's portable
/// C code decodes: two to three times slower, and to the same pixels for every intact file. Only corrupt entropy-coded data
/// that is still decoded (mostly with [`RgbImage::warnings`]) may give other pixels: its coefficients overflow,
/// and the SIMD code, which Pillow's builds use, wraps and saturates in 16 bits where the C code has 32.
#[must_use]
pub fn jpeg_simd() -> bool {
    // SAFETY: no arguments; it only reads features of the processor.
    unsafe { tg_jpeg_simd() != 0 }
}

/// Decodes the pixels that are needed, and perhaps some more. `scans_at` is the end of the first scan's header.
pub(super) fn decode(
    bytes: &[u8],
    scans_at: usize,
    gate: &mut Gate<'_>,
    picture: &mut Picture,
) -> Result<(), DecodeError> {
    if gate.limits.jpeg_entropy == JpegEntropy::Own {
        match decode_by(Way::Sound, bytes, scans_at, gate, picture) {
            Err(Stop::Unsound) => {}
            Err(Stop::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
    match decode_by(Way::Libjpeg, bytes, scans_at, gate, picture) {
        Err(Stop::Unsound) => unreachable!("libjpeg alone does not say so"),
        Err(Stop::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// [`decode`] for all pixels.
pub(super) fn decode_whole(
    bytes: &[u8],
    scans_at: usize,
    gate: &mut Gate<'_>,
    image: &mut RgbImage,
) -> Result<(), DecodeError> {
    let mut picture = Picture { image: std::mem::take(image), ..Picture::default() };
    let result = decode(bytes, scans_at, gate, &mut picture);
    *image = picture.image;
    result
}

/// How a file is decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Fast, as far as needed, if the file is sound.
    Sound,
    /// All of it, by libjpeg alone.
    Libjpeg,
}

/// Why there is no picture.
enum Stop {
    /// The file must be decoded by libjpeg alone.
    Unsound,
    Error(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Stop {
        Stop::Error(error)
    }
}

fn decode_by(way: Way, bytes: &[u8], scans_at: usize, gate: &mut Gate<'_>, picture: &mut Picture) -> Result<(), Stop> {
    let mut jpeg = Jpeg::open(bytes)?;
    let (width, height) = (jpeg.header.width, jpeg.header.height);
    let max_scans = gate.limits.max_scans(width, height);
    if jpeg.header.coefficient_bytes > 0 {
        check_scans(bytes, scans_at, max_scans)?;
    }
    let needed = gate.admit(width, height, jpeg.header.coefficient_bytes)?.region;
    if !matches!(jpeg.header.components, 1 | 3 | 4) {
        return Err(DecodeError::unsupported(Format::Jpeg, format!("{} components", jpeg.header.components)).into());
    }
    let whole = Window { left: 0, top: 0, width, height };
    let window = match way {
        Way::Sound => jpeg.start(max_scans, Some(needed.map_or(whole, Window::from)))?,
        Way::Libjpeg => jpeg.start(max_scans, None)?,
    }
    .unwrap_or(whole);
    let image = &mut picture.image;
    // Within the size that was checked.
    let rgb_bytes = window.width as usize * window.height as usize * 3;
    reserve(&mut image.pixels, rgb_bytes)?;
    if jpeg.header.output_components == 4 {
        jpeg.read_cmyk(window, &mut image.pixels)?;
    } else {
        jpeg.read_rgb(window, &mut image.pixels)?;
    }
    let ended = jpeg.finish()?;
    debug_assert_eq!(image.pixels.len(), rgb_bytes);
    (image.width, image.height) = (window.width, window.height);
    image.warnings = jpeg.warnings() + u32::from(!ended);
    (picture.left, picture.top, picture.whole) = (window.left, window.top, (width, height));
    Ok(())
}

/// Refuses a file of several scans that has more of them than it may, or no end.
fn check_scans(bytes: &[u8], scans_at: usize, max_scans: u32) -> Result<(), DecodeError> {
    if !jpeg_scans::has_end(bytes, scans_at) {
        return Err(DecodeError::truncated(Format::Jpeg, "the data ends before the end marker"));
    }
    if jpeg_scans::count_scans(bytes, scans_at) > max_scans {
        return Err(DecodeError::unsupported(Format::Jpeg, format!("more than {max_scans} scans")));
    }
    Ok(())
}

impl From<Region> for Window {
    fn from(Region { left, top, width, height }: Region) -> Window {
        Window { left, top, width, height }
    }
}

/// A file being decoded. The input is borrowed for as long as the C object keeps pointers into it.
struct Jpeg<'a> {
    raw: NonNull<RawJpeg>,
    header: Header,
    _input: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Jpeg<'a> {
    fn open(bytes: &'a [u8]) -> Result<Jpeg<'a>, Stop> {
        // SAFETY: takes nothing; the result is checked for NULL.
        let raw = NonNull::new(unsafe { tg_jpeg_create() }).ok_or(DecodeError::OutOfMemory { bytes: 0 })?;
        let mut jpeg = Jpeg { raw, header: Header::default(), _input: std::marker::PhantomData };
        // SAFETY: `raw` is live until drop; `bytes` outlives `jpeg` by its lifetime; `header` is writable.
        let status = unsafe { tg_jpeg_open(raw.as_ptr(), bytes.as_ptr(), bytes.len(), &raw mut jpeg.header) };
        jpeg.check(status, "the data ends inside the header")?;
        Ok(jpeg)
    }

    /// Starts the fast way with the window that is wanted, and returns the one that there will be; or libjpeg's way.
    fn start(&mut self, max_scans: u32, mut window: Option<Window>) -> Result<Option<Window>, Stop> {
        let max_scans = c_int::try_from(max_scans).unwrap_or(c_int::MAX);
        let argument = window.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: `raw` is live, and its header was read by `open`; `argument` is NULL or a window that can be written.
        let status = unsafe { tg_jpeg_start(self.raw.as_ptr(), max_scans, argument) };
        self.check(status, "the data ends before the end marker")?;
        Ok(window)
    }

    /// Appends the window's rows to `out`, which has room for them.
    fn read_rgb(&mut self, window: Window, out: &mut Vec<u8>) -> Result<(), Stop> {
        let stride = window.width as usize * 3;
        for first in (0..window.height).step_by(ROWS_PER_CALL as usize) {
            self.read_rows(out, stride, ROWS_PER_CALL.min(window.height - first))?;
        }
        Ok(())
    }

    /// Appends the window's rows to `out`, converted from CMYK.
    fn read_cmyk(&mut self, window: Window, out: &mut Vec<u8>) -> Result<(), Stop> {
        let stride = window.width as usize * 4;
        let mut row = Vec::new();
        for _ in 0..window.height {
            reserve(&mut row, stride)?;
            self.read_rows(&mut row, stride, 1)?;
            out.extend(row.chunks_exact(4).flat_map(cmyk_to_rgb));
        }
        Ok(())
    }

    /// Appends `count` rows of `stride` bytes to `out`.
    fn read_rows(&mut self, out: &mut Vec<u8>, stride: usize, count: u32) -> Result<(), Stop> {
        let bytes = stride * count as usize;
        let room = out.spare_capacity_mut();
        assert!(room.len() >= bytes, "room for the rows was reserved");
        // SAFETY: `room` has `bytes` writable bytes, and the shim writes exactly `count` rows of `output_components` times
        // the window's width, which is `stride`, when it returns OK, and never more.
        let status = unsafe { tg_jpeg_read_rows(self.raw.as_ptr(), room.as_mut_ptr().cast(), stride, count) };
        self.check(status, "the data ends before the last row")?;
        // SAFETY: the bytes were reserved, and all of them were written (status OK).
        unsafe { out.set_len(out.len() + bytes) };
        Ok(())
    }

    /// Reads on to the end marker; false: the data ends before it.
    fn finish(&mut self) -> Result<bool, Stop> {
        // SAFETY: `raw` is live and has been started.
        let status = unsafe { tg_jpeg_finish(self.raw.as_ptr()) };
        if status == TRUNCATED {
            return Ok(false);
        }
        self.check(status, "")?;
        Ok(true)
    }

    fn warnings(&self) -> u32 {
        // SAFETY: `raw` is live.
        unsafe { tg_jpeg_warnings(self.raw.as_ptr()) }
    }

    fn check(&self, status: c_int, when_truncated: &'static str) -> Result<(), Stop> {
        match status {
            OK => return Ok(()),
            UNSOUND => return Err(Stop::Unsound),
            TRUNCATED => return Err(DecodeError::truncated(Format::Jpeg, when_truncated).into()),
            _ => {}
        }
        // SAFETY: the shim returns its own NUL-terminated buffer, which lives as long as `raw`.
        let message = unsafe { CStr::from_ptr(tg_jpeg_message(self.raw.as_ptr())) }.to_string_lossy().into_owned();
        if status == TOO_MANY_SCANS {
            return Err(DecodeError::unsupported(Format::Jpeg, message).into());
        }
        Err(DecodeError::broken(Format::Jpeg, message).into())
    }
}

impl Drop for Jpeg<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `tg_jpeg_create` and is destroyed once.
        unsafe { tg_jpeg_destroy(self.raw.as_ptr()) };
    }
}

/// Pillow's CMYK to RGB. `stored` is what libjpeg gives: inverted ink, with or without an Adobe marker (YCCK arrives
/// converted to it).
fn cmyk_to_rgb(stored: &[u8]) -> [u8; 3] {
    // Ink is 255 - stored, so 255 - K is the stored value itself.
    let not_black = stored[3];
    std::array::from_fn(|c| not_black.saturating_sub(mul_div_255(255 - stored[c], not_black)))
}

/// a * b / 255, rounded, as Pillow's `MULDIV255`.
fn mul_div_255(a: u8, b: u8) -> u8 {
    let t = u32::from(a) * u32::from(b) + 128;
    (((t >> 8) + t) >> 8) as u8
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
