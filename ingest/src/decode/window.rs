//! A decoded picture of which there may be only the part that is needed.

use super::{DecodeError, Format, Limits, RgbImage, decode_rgb_into, jpeg, jpeg_segments};
use crate::resample::Region;

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
}

/// [`decode_rgb_into`], of which only a part is wanted: `needed` is told width and height, and names it (`None`: all). There
/// may be more around it. The pixels, and whether the file is accepted, are the same as for the whole picture.
pub(crate) fn decode_window_into(
    bytes: &[u8],
    limits: &Limits,
    needed: &mut dyn FnMut(u32, u32) -> Option<Region>,
    picture: &mut Picture,
) -> Result<(), DecodeError> {
    if Format::of(bytes) == Some(Format::Jpeg) {
        jpeg_segments::check(bytes)?;
        picture.image.pixels.clear();
        return jpeg::decode(bytes, limits, needed, picture);
    }
    decode_rgb_into(bytes, limits, &mut picture.image)?;
    (picture.left, picture.top) = (0, 0);
    picture.whole = (picture.image.width, picture.image.height);
    Ok(())
}
