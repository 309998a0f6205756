//! What one file may cost: bounds on pixels, scans and memory.

use super::DecodeError;

/// Pillow's limit against decompression bombs, in pixels: twice its `MAX_IMAGE_PIXELS`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Scans of one JPEG file that are still decoded. Real progressive files have about ten; each costs a pass over the picture.
const MAX_JPEG_SCANS: u32 = 500;

/// The most scans of a JPEG file with [`MAX_PIXELS`] that are decoded; of smaller pictures more, in proportion.
const MAX_SCANS_OF_THE_LARGEST: u64 = 16;

/// Memory that decoding one file may take, in bytes: with the rest of the process below a gibibyte.
const MAX_DECODE_BYTES: u64 = 960 << 20;

/// Which entropy decoder takes JPEG files. Pixels, warnings and verdicts are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum JpegEntropy {
    /// For intact files of one scan the one of this crate (`csrc/huffman.c`), which lets pictures be decoded as far as they are
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
    pub(super) fn max_scans(&self, width: u32, height: u32) -> u32 {
        let pixels = (u64::from(width) * u64::from(height)).max(1);
        let by_pixels = (MAX_SCANS_OF_THE_LARGEST * MAX_PIXELS / pixels).max(MAX_SCANS_OF_THE_LARGEST);
        u32::try_from(by_pixels).unwrap_or(u32::MAX).min(self.max_jpeg_scans)
    }

    /// Checks a size that a header claims, and returns the bytes that it takes as RGB.
    pub(super) fn check(&self, width: u32, height: u32) -> Result<usize, DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(DecodeError::Empty { width, height });
        }
        if pixels > self.max_pixels {
            return Err(DecodeError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        let too_large = || DecodeError::TooManyPixels { width, height, limit: (isize::MAX / 3) as u64 };
        let bytes = pixels.checked_mul(3).ok_or_else(too_large)?;
        isize::try_from(bytes).map(|bytes| bytes as usize).map_err(|_| too_large())
    }
}
