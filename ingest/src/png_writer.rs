//! PNG files of 8-bit RGB, written.

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PngSize {
    /// Smaller: the default compression of the `png` crate.
    Small,
    /// Larger, and written faster.
    Fast,
}

/// Writes the pixels `[height, width, 3]` as a PNG to the end of `out`, with text chunks: keyword (1 to 79 characters) and text,
/// both Latin-1.
///
/// # Errors
/// [`png::EncodingError::Format`] for a side of 0 or text that is not Latin-1, [`png::EncodingError::Parameter`] when
/// `pixels` are not `height * width * 3` bytes.
pub fn write_png(
    pixels: &[u8],
    [width, height]: [u32; 2],
    size: PngSize,
    texts: &[(&str, &str)],
    out: &mut Vec<u8>,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if size == PngSize::Fast {
        encoder.set_compression(png::Compression::Fast);
    }
    for (keyword, text) in texts {
        encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?;
    }
    encoder.write_header()?.write_image_data(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, decode_rgb};

    #[test]
    fn what_is_written_is_read_again() {
        let pixels: Vec<u8> = (0..5 * 7 * 3).map(|i| (i * 37 % 256) as u8).collect();
        for size in [PngSize::Small, PngSize::Fast] {
            let mut file = vec![];
            write_png(&pixels, [7, 5], size, &[("Software", "test")], &mut file).expect("a picture");
            assert!(file.windows(13).any(|bytes| bytes == b"Software\0test"));
            let image = decode_rgb(&file, &Limits::default()).expect("a PNG");
            assert_eq!((image.width, image.height, image.pixels), (7, 5, pixels.clone()));
        }
        assert!(write_png(&pixels, [7, 6], PngSize::Small, &[], &mut vec![]).is_err());
        assert!(write_png(&[], [0, 0], PngSize::Small, &[], &mut vec![]).is_err());
    }
}
