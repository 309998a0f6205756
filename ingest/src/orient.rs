//! Rotation and reflection of an image by its EXIF orientation, as Pillow's `ImageOps.exif_transpose` does.

use crate::decode::RgbImage;

/// What takes pixel (x, y) of a stored image of `width` x `height` to its place; the orientations 5 to 8 swap the sides.
fn place(orientation: u8, (x, y): (usize, usize), (width, height): (usize, usize)) -> (usize, usize) {
    match orientation {
        2 => (width - 1 - x, y),
        3 => (width - 1 - x, height - 1 - y),
        4 => (x, height - 1 - y),
        5 => (y, x),
        6 => (height - 1 - y, x),
        7 => (height - 1 - y, width - 1 - x),
        8 => (y, width - 1 - x),
        _ => (x, y),
    }
}

/// Turns `image`, stored with `orientation` (1 to 8), upright. `spare` is memory that is used again and again.
pub(crate) fn make_upright(image: &mut RgbImage, orientation: u8, spare: &mut Vec<u8>) {
    if orientation <= 1 {
        return;
    }
    let (width, height) = (image.width as usize, image.height as usize);
    let new_width = if orientation >= 5 { height } else { width };
    spare.clear();
    spare.resize(image.pixels.len(), 0);
    let (stored, _) = image.pixels.as_chunks::<3>();
    let (upright, _) = spare.as_chunks_mut::<3>();
    for (y, row) in stored.chunks_exact(width).enumerate() {
        for (x, pixel) in row.iter().enumerate() {
            let (new_x, new_y) = place(orientation, (x, y), (width, height));
            upright[new_y * new_width + new_x] = *pixel;
        }
    }
    std::mem::swap(&mut image.pixels, spare);
    if orientation >= 5 {
        std::mem::swap(&mut image.width, &mut image.height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a b c / d e f` as transposed by Pillow's `exif_transpose`, rows from the top.
    #[test]
    fn the_eight_orientations_equal_pillows() {
        let upright = [
            (1, "abc def"),
            (2, "cba fed"),
            (3, "fed cba"),
            (4, "def abc"),
            (5, "ad be cf"),
            (6, "da eb fc"),
            (7, "fc eb da"),
            (8, "cf be ad"),
        ];
        for (orientation, expected) in upright {
            let pixels = b"abcdef".iter().flat_map(|&letter| [letter, 0, 255 - letter]).collect();
            let mut image = RgbImage { width: 3, height: 2, pixels, warnings: 0 };
            make_upright(&mut image, orientation, &mut vec![9; 40]);
            let rows = image.pixels.chunks(image.width as usize * 3);
            let rows: Vec<String> = rows.map(|row| row.chunks(3).map(|pixel| char::from(pixel[0])).collect()).collect();
            assert_eq!(rows.join(" "), expected, "orientation {orientation}");
            assert!(image.pixels.chunks(3).all(|pixel| pixel[1] == 0 && pixel[2] == 255 - pixel[0]));
            assert_eq!(rows.len(), image.height as usize);
        }
    }
}
