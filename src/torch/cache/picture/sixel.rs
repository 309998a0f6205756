//! Sixels: rows of six pixels, colour by colour, in a palette of 6 x 7 x 6 colours, dithered.

use std::fmt::Write;
use tokengrid_model::Picture;

/// Levels of red, green and blue; the eye sees most of them in green.
const LEVELS: [u32; 3] = [6, 7, 6];

/// Thresholds of an ordered dither, in 16ths.
const DITHER: [[u32; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];

/// Pixels of a sixel.
const SIX: usize = 6;

/// The picture.
pub fn text(picture: &Picture) -> String {
    let (width, height) = (picture.width, picture.height);
    // Device control string; transparent background off; size.
    let mut text = format!("\x1bP0;1q\"1;1;{width};{height}");
    for color in 0..LEVELS.iter().product::<u32>() {
        let [r, g, b] = levels_of(color);
        let percent = |level: u32, levels: u32| level * 100 / (levels - 1);
        let _ =
            write!(text, "#{color};2;{};{};{}", percent(r, LEVELS[0]), percent(g, LEVELS[1]), percent(b, LEVELS[2]));
    }
    for top in (0..height).step_by(SIX) {
        let band: Vec<Vec<u32>> =
            (top..(top + SIX).min(height)).map(|y| (0..width).map(|x| color_of(picture, x, y)).collect()).collect();
        let mut colors = band.concat();
        colors.sort_unstable();
        colors.dedup();
        for color in colors {
            let _ = write!(text, "#{color}");
            push_runs(&mut text, (0..width).map(|x| sixel(&band, x, color)));
            text.push('$');
        }
        text.push('-');
    }
    text.push_str("\x1b\\");
    text
}

/// Which of the six pixels at `x` have the colour, as the character for them.
fn sixel(band: &[Vec<u32>], x: usize, color: u32) -> char {
    let bits = band.iter().enumerate().fold(0u8, |bits, (y, row)| bits | u8::from(row[x] == color) << y);
    char::from(b'?' + bits)
}

/// Characters, equal ones that follow each other counted.
fn push_runs(text: &mut String, characters: impl Iterator<Item = char>) {
    let characters: Vec<char> = characters.collect();
    for run in characters.chunk_by(|a, b| a == b) {
        if run.len() > 3 {
            let _ = write!(text, "!{}{}", run.len(), run[0]);
        } else {
            text.extend(run);
        }
    }
}

fn levels_of(color: u32) -> [u32; 3] {
    [color / (LEVELS[1] * LEVELS[2]), color / LEVELS[2] % LEVELS[1], color % LEVELS[2]]
}

/// The dithered colour of a pixel.
fn color_of(picture: &Picture, x: usize, y: usize) -> u32 {
    let threshold = DITHER[y % 4][x % 4];
    let pixel = &picture.rgb[(y * picture.width + x) * 3..][..3];
    pixel.iter().zip(LEVELS).fold(0, |color, (value, levels)| {
        let exact = u32::from(*value) * (levels - 1) * 16 / 255;
        color * levels + ((exact + threshold) / 16).min(levels - 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_red_picture_is_one_run_of_red_in_each_band() {
        let picture = Picture::new(10, 8, [255, 0, 0].repeat(80));
        let text = text(&picture);
        let red = 5 * 42;
        assert!(text.starts_with("\x1bP0;1q\"1;1;10;8#0;2;0;0;0#1;2;0;0;20"), "{}", &text[..40]);
        assert!(text.contains(&format!("#{red};2;100;0;0#")));
        assert!(text.ends_with(&format!("#{red}!10~$-#{red}!10B$-\x1b\\")), "two pixels are left for the second band");
    }

    #[test]
    fn dithering_keeps_the_mean() {
        let picture = Picture::new(16, 16, vec![100; 16 * 16 * 3]);
        let mean = |channel: usize| {
            let level = |i: usize| levels_of(color_of(&picture, i % 16, i / 16))[channel] as f64;
            (0..256).map(level).sum::<f64>() / 256.0 * 255.0 / f64::from(LEVELS[channel] - 1)
        };
        assert!((0..3).all(|channel| (mean(channel) - 100.0).abs() < 6.0));
    }
}
