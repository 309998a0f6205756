//! A decoded picture of which there may be only the part that is needed.

use super::gate::{Gate, Needed};
use super::{DecodeError, Format, Limits, RgbImage, decode_rgb_into, fault, jpeg, jpeg_segments};
use crate::memory::Claim;

/// The pixels of a rectangle of a picture.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// The rectangle's pixels; `width` and `height` are its own.
    pub image: RgbImage,
    /// Columns of the whole picture to the left of the rectangle.
    pub left: u32,
    /// Rows of the whole picture above it.
    pub top: u32,
    /// Columns and rows of the whole picture.
    pub whole: (u32, u32),
    /// The part of the memory budget that decoding it takes; to be dropped when the pixels are no longer used. A claim that
    /// is set before decoding is taken to be enough for any picture.
    pub claim: Option<Claim>,
}

/// [`decode_rgb_into`], of which only a part is wanted. There may be more around it. The pixels, and whether the file is
/// accepted, are the same as for the whole picture; but one that the caller refuses ends as soon as its size is known.
///
/// The caller makes `num_copies` further pictures of the same size from it.
pub(crate) fn decode_window_into(
    bytes: &[u8],
    limits: &Limits,
    needed: Needed<'_>,
    num_copies: u64,
    picture: &mut Picture,
) -> Result<(), DecodeError> {
    let mut gate = Gate::new(limits, needed, num_copies, picture.claim.take());
    let result = decode_through(bytes, &mut gate, picture);
    picture.claim = gate.claim;
    result
}

fn decode_through(bytes: &[u8], gate: &mut Gate<'_>, picture: &mut Picture) -> Result<(), DecodeError> {
    if Format::of(bytes) == Some(Format::Jpeg) {
        fault::panic_on_request(bytes);
        let scans_at = jpeg_segments::check(bytes)?;
        picture.image.pixels.clear();
        return jpeg::decode(bytes, scans_at, gate, picture);
    }
    decode_rgb_into(bytes, gate, &mut picture.image)?;
    (picture.left, picture.top) = (0, 0);
    picture.whole = (picture.image.width, picture.image.height);
    Ok(())
}
