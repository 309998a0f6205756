//! Pictures: of tokens, of the source's images, and what is made of both.

mod decoding;
mod parts;
mod recent;
mod source;

pub use decoding::Decode;
pub(crate) use decoding::Decoding;
pub(crate) use source::SourceImages;
use tokengrid_ingest::{PngSize, write_png};

/// An RGB picture, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// `[height, width, 3]`, RGB, 0 to 255.
    pub rgb: Vec<u8>,
}

/// Differences are shown this many times as large, or they would be invisible. The page has the same number.
const DIFFERENCE_GAIN: u32 = 4;

impl Picture {
    /// The bytes of a PNG file.
    ///
    /// # Panics
    /// When the picture has no pixels.
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Pictures usually go over the loopback interface: speed counts more than size.
        let written = write_png(&self.rgb, [self.width as u32, self.height as u32], PngSize::Fast, &[], &mut bytes);
        written.expect("a picture that is not empty fits into memory");
        bytes
    }

    /// How much two pictures of one size differ, value by value, four times as much; `None` for two sizes.
    pub(crate) fn difference(&self, other: &Picture) -> Option<Picture> {
        let gained = |(a, b): (&u8, &u8)| (u32::from(a.abs_diff(*b)) * DIFFERENCE_GAIN).min(255) as u8;
        let rgb = || self.rgb.iter().zip(&other.rgb).map(gained).collect();
        self.fits(other).then(|| Picture { rgb: rgb(), ..*self })
    }

    /// Peak signal-to-noise ratio of two pictures of one size, in dB; `None` for two sizes, infinite for equal pictures.
    pub(crate) fn psnr(&self, other: &Picture) -> Option<f64> {
        self.fits(other).then(|| tokengrid_ingest::psnr(&self.rgb, &other.rgb))
    }

    fn fits(&self, other: &Picture) -> bool {
        (self.width, self.height) == (other.width, other.height)
    }

    /// The part that begins at (left, top), cut at the picture's edges.
    pub(crate) fn part(&self, (left, top): (usize, usize), (width, height): (usize, usize)) -> Picture {
        let (right, bottom) = ((left + width).min(self.width), (top + height).min(self.height));
        let row = |y: usize| &self.rgb[(y * self.width + left) * 3..(y * self.width + right) * 3];
        Picture { width: right - left, height: bottom - top, rgb: (top..bottom).flat_map(row).copied().collect() }
    }

    /// The mean of pictures of one size; `None` of none.
    pub(crate) fn mean(pictures: &[std::sync::Arc<Picture>]) -> Option<Picture> {
        let first = pictures.first()?;
        let mean = |i: usize| {
            let sum: usize = pictures.iter().map(|picture| usize::from(picture.rgb[i])).sum();
            ((sum + pictures.len() / 2) / pictures.len()) as u8
        };
        Some(Picture { rgb: (0..first.rgb.len()).map(mean).collect(), width: first.width, height: first.height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn gray(value: u8) -> Picture {
        Picture { width: 3, height: 2, rgb: vec![value; 18] }
    }

    #[test]
    fn pictures_are_compared_cut_and_averaged() {
        assert_eq!(gray(10).difference(&gray(30)), Some(gray(80)));
        assert_eq!(gray(0).difference(&gray(200)), Some(gray(255)));
        assert_eq!(gray(0).psnr(&gray(255)), Some(0.0));
        assert_eq!(gray(7).psnr(&gray(7)), Some(f64::INFINITY));
        let small = Picture { width: 1, height: 1, rgb: vec![1, 2, 3] };
        assert_eq!((gray(0).psnr(&small), gray(0).difference(&small)), (None, None));
        let numbered = Picture { rgb: (0..18).collect(), ..gray(0) };
        assert_eq!(numbered.part((1, 1), (9, 9)), Picture { width: 2, height: 1, rgb: vec![12, 13, 14, 15, 16, 17] });
        assert_eq!(Picture::mean(&[Arc::new(gray(10)), Arc::new(gray(21))]), Some(gray(16)));
        assert!(gray(3).to_png().starts_with(b"\x89PNG"));
    }
}
