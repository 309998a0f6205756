//! Captions of pictures.

use plotters::prelude::*;
use std::sync::Once;
use tokengrid_model::{FONT, Picture};

const FAMILY: &str = "tokengrid";

/// Height of the caption's strip and of its letters, in pixels.
const STRIP: usize = 18;
const LETTERS: i32 = 12;

/// `picture` below a strip with `text`, which is cut off at the picture's width.
pub(crate) fn captioned(picture: &Picture, text: &str) -> Picture {
    let height = picture.height + STRIP;
    let mut rgb = vec![255; picture.width * height * 3];
    rgb[picture.width * STRIP * 3..].copy_from_slice(&picture.rgb);
    write(&mut rgb[..picture.width * STRIP * 3], picture.width, text);
    Picture::new(picture.width, height, rgb)
}

/// Draws `text` on the strip. A failure is only logged: the picture is valid without its caption.
fn write(strip: &mut [u8], width: usize, text: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
    });
    let area = BitMapBackend::with_buffer(strip, (width as u32, STRIP as u32)).into_drawing_area();
    // A letter is at least a pixel wide, so the rest would not be visible, and shaping megabytes of text takes minutes.
    let text: String = text.chars().take(width).collect();
    let style = (FAMILY, LETTERS).into_font().color(&BLACK);
    if let Err(error) = area.draw(&Text::new(text.clone(), (2, 3), style)).and_then(|()| area.present()) {
        tracing::warn!("cannot write {text:?} on a picture: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_above_the_picture_and_differ() {
        let gray = Picture::new(64, 8, vec![128; 64 * 8 * 3]);
        let [one, two] = ["207 cat", "88 dog"].map(|text| captioned(&gray, text));
        assert_eq!((one.width, one.height), (64, 8 + STRIP));
        assert_eq!(one.rgb[64 * STRIP * 3..], gray.rgb);
        let ink = |picture: &Picture| picture.rgb[..64 * STRIP * 3].iter().filter(|byte| **byte < 128).count();
        assert!(ink(&one) > 30 && ink(&two) > 30, "{} {}", ink(&one), ink(&two));
        assert_ne!(one, two);
        // Wider than the picture: cut off, at any length.
        let (long, longer) = (captioned(&gray, &"w".repeat(100)), captioned(&gray, &"w".repeat(50_000_000)));
        assert_eq!(long, longer);
    }
}
