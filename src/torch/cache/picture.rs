//! Pictures in terminals: `cache show --image`.
//!
//! A half-block character shows two pixels: the upper in the foreground colour, the lower in the background colour.

use crate::args::{DeviceArgs, Global, TokenizerArgs};
use crate::commands::cache::table::terminal_columns;
use crate::torch::decoder::TokenDecoder;
use std::fmt::Write;
use tokengrid_cache::Manifest;
use tokengrid_model::Picture;

/// Width in characters of a picture if that of the terminal is unknown.
const COLUMNS: usize = 80;

/// Decodes a grid and prints its picture.
pub(crate) fn print(
    manifest: &Manifest,
    tokens: &[u32],
    weights: &TokenizerArgs,
    device: &DeviceArgs,
    global: &Global,
) -> anyhow::Result<()> {
    let picture = TokenDecoder::open(manifest, weights, device, global)?.picture(tokens);
    let columns = terminal_columns();
    let text = text(&picture, if columns == usize::MAX { COLUMNS } else { columns });
    crate::output::print_raw(&format!("{text}\n"));
    Ok(())
}

/// The picture as text, at most `columns` characters wide; it is never enlarged.
fn text(picture: &Picture, columns: usize) -> String {
    let width = columns.min(picture.width).max(1);
    let height = (picture.height * width / picture.width.max(1)).max(1);
    let mut text = String::new();
    for top in (0..height).step_by(2) {
        for x in 0..width {
            let [r, g, b] = mean(picture, (x, top), (width, height));
            let _ = write!(text, "\x1b[38;2;{r};{g};{b}m");
            if top + 1 < height {
                let [r, g, b] = mean(picture, (x, top + 1), (width, height));
                let _ = write!(text, "\x1b[48;2;{r};{g};{b}m");
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\n");
    }
    text.pop();
    text
}

/// Mean colour of the part of the picture that pixel (x, y) of a smaller version of the given size covers.
fn mean(picture: &Picture, (x, y): (usize, usize), (width, height): (usize, usize)) -> [u32; 3] {
    let span = |at: usize, of: usize, all: usize| at * all / of..((at + 1) * all / of).max(at * all / of + 1);
    let (columns, rows) = (span(x, width, picture.width), span(y, height, picture.height));
    let count = (columns.len() * rows.len()) as u32;
    let pixel = |x: usize, y: usize| &picture.rgb[(y * picture.width + x) * 3..][..3];
    let sum = |channel: usize| {
        rows.clone().flat_map(|y| columns.clone().map(move |x| u32::from(pixel(x, y)[channel]))).sum::<u32>()
    };
    [0, 1, 2].map(|channel| (sum(channel) + count / 2) / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_two_pixels() {
        let rgb = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]].concat();
        let picture = Picture::new(2, 2, rgb);
        assert_eq!(
            text(&picture, 80),
            "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;255;0m\x1b[48;2;10;20;30m▀\x1b[0m"
        );
        assert_eq!(text(&picture, 1), "\x1b[38;2;66;69;71m▀\x1b[0m", "the mean of all four");
        let wide = Picture::new(300, 100, vec![7; 90_000]);
        assert_eq!(text(&wide, 60).lines().count(), 10);
    }
}
