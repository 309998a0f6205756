//! PNG files, and grids of pictures.

/// An RGB picture, row-major.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

/// Space between the pictures of a grid, in pixels, and its grey value.
const GAP: usize = 4;
const BACKGROUND: u8 = 255;

/// The text chunk by which a picture is known as one that this program made, so that it may be replaced.
const SOFTWARE: (&str, &str) = ("Software", "tokengrid");

impl Picture {
    /// A picture over given pixels `[height, width, 3]`.
    ///
    /// # Panics
    /// When `rgb` has another length than the size needs.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Picture {
        assert_eq!(rgb.len(), width * height * 3, "pixels fill the picture");
        Picture { width, height, rgb }
    }

    /// The pictures of a batch `[B, S, S, 3]` of bytes.
    pub fn batch(bytes: &[u8], side: usize) -> Vec<Picture> {
        bytes.chunks_exact(side * side * 3).map(|rgb| Picture::new(side, side, rgb.to_vec())).collect()
    }

    /// Pictures of one size in rows of `columns`, with gaps between them.
    ///
    /// # Panics
    /// When the pictures differ in size.
    pub fn grid(pictures: &[Picture], columns: usize) -> Picture {
        let Some(first) = pictures.first() else { return Picture::new(0, 0, vec![]) };
        let columns = columns.clamp(1, pictures.len());
        let rows = pictures.len().div_ceil(columns);
        let (step_x, step_y) = (first.width + GAP, first.height + GAP);
        let (width, height) = (columns * step_x - GAP, rows * step_y - GAP);
        let mut grid = Picture::new(width, height, vec![BACKGROUND; width * height * 3]);
        for (i, picture) in pictures.iter().enumerate() {
            grid.paste(picture, i % columns * step_x, i / columns * step_y);
        }
        grid
    }

    fn paste(&mut self, picture: &Picture, left: usize, top: usize) {
        assert!(left + picture.width <= self.width && top + picture.height <= self.height, "pictures of one size");
        for (y, row) in picture.rgb.chunks_exact(picture.width * 3).enumerate() {
            let from = ((top + y) * self.width + left) * 3;
            self.rgb[from..from + row.len()].copy_from_slice(row);
        }
    }

    /// The bytes of a PNG file, which names this program in its text.
    ///
    /// # Panics
    /// When the picture is empty.
    pub fn to_png(&self) -> Vec<u8> {
        self.to_png_with(&[])
    }

    /// [`Picture::to_png`] with more text chunks: keyword (1 to 79 characters) and text, both Latin-1.
    ///
    /// # Panics
    /// When the picture is empty, or the text is not Latin-1.
    pub fn to_png_with(&self, texts: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in [SOFTWARE].iter().chain(texts) {
            encoder.add_text_chunk(keyword.to_string(), text.to_string()).expect("text is added before the header");
        }
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&self.rgb));
        written.expect("a picture that is not empty fits into memory");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_places_pictures_in_rows() {
        let picture = |value: u8| Picture::new(2, 2, vec![value; 12]);
        let grid = Picture::grid(&[picture(1), picture(2), picture(3)], 2);
        assert_eq!((grid.width, grid.height), (2 * 2 + GAP, 2 * 2 + GAP));
        let at = |x: usize, y: usize| grid.rgb[(y * grid.width + x) * 3];
        assert_eq!((at(0, 0), at(2 + GAP, 0), at(0, 2 + GAP), at(2 + GAP, 2 + GAP)), (1, 2, 3, BACKGROUND));
    }
}
