//! Maps and numbers of the distributions that tokens were drawn from, for tuning temperature, filters and guidance.
//!
//! Beside the image are six maps with one cell per token. Above: low bits; below: high bits. From left to right: entropy from 0
//! to that of a uniform distribution, probability of the tokens that the filters leave, probability of the token that was
//! drawn, both from 0 to 1. Dark is low, bright is high.

use crate::captions::captioned;
use crate::draw::DrawStats;
use tokengrid_model::Picture;

/// Least width of a map, in pixels: its caption needs room.
const LEAST_WIDTH: usize = 160;

/// Colours from low to high, evenly spaced and linearly interpolated. Their brightness rises, for printing in grey.
const COLOURS: [[u8; 3]; 5] = [[20, 11, 52], [100, 26, 128], [202, 62, 114], [253, 149, 98], [252, 253, 191]];

/// The maps and the numbers (JSON) of one image, whose tokens had `stats_n`, in raster order.
pub(crate) fn draw(picture: &Picture, stats_n: &[[DrawStats; 2]], vocab: [i64; 2]) -> (Picture, String) {
    (maps(picture, stats_n, vocab), numbers(stats_n))
}

/// One object, with lists in raster order.
fn numbers(stats_n: &[[DrawStats; 2]]) -> String {
    let part = |part: usize| {
        let list = |value: fn(&DrawStats) -> f64| stats_n.iter().map(|stats| value(&stats[part])).collect::<Vec<f64>>();
        let [entropy, kept, chosen] = [list(|f| f.entropy), list(|f| f.kept), list(|f| f.chosen)];
        serde_json::json!({ "entropy_nats": entropy, "kept": kept, "chosen": chosen })
    };
    serde_json::json!({ "low_bits": part(0), "high_bits": part(1) }).to_string()
}

fn maps(picture: &Picture, stats_n: &[[DrawStats; 2]], vocab: [i64; 2]) -> Picture {
    let side = stats_n.len().isqrt().max(1);
    let cell = picture.width.max(LEAST_WIDTH).div_ceil(side);
    let enlarged = enlarged(picture, side * cell);
    let mut panels = vec![];
    for (part, name) in ["low bits", "high bits"].into_iter().enumerate() {
        let most = (vocab[part] as f64).ln();
        let mean = |value: &dyn Fn(&DrawStats) -> f64| {
            stats_n.iter().map(|stats| value(&stats[part])).sum::<f64>() / stats_n.len().max(1) as f64
        };
        let map = |value: &dyn Fn(&DrawStats) -> f64, full: f64, text: String| {
            captioned(&heat_map(stats_n.iter().map(|stats| value(&stats[part]) / full), side, cell), &text)
        };
        panels.push(captioned(&enlarged, name));
        panels.push(map(&|f| f.entropy, most, format!("entropy, mean {:.2} nats", mean(&|f| f.entropy))));
        panels.push(map(&|f| f.kept, 1.0, format!("kept, mean {:.3}", mean(&|f| f.kept))));
        panels.push(map(&|f| f.chosen, 1.0, format!("chosen, mean {:.3}", mean(&|f| f.chosen))));
    }
    Picture::grid(&panels, panels.len() / 2)
}

/// `side * side` values from 0 to 1 as squares of `cell` pixels.
fn heat_map(values: impl Iterator<Item = f64>, side: usize, cell: usize) -> Picture {
    let colours: Vec<[u8; 3]> = values.map(colour).collect();
    let width = side * cell;
    let pixels = (0..width * width).map(|i| colours[i / width / cell * side + i % width / cell]);
    Picture::new(width, width, pixels.flatten().collect())
}

/// The colour of a value from 0 to 1.
fn colour(value: f64) -> [u8; 3] {
    let place = value.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let low = (place as usize).min(COLOURS.len() - 2);
    let share = place - low as f64;
    std::array::from_fn(|i| {
        let (a, b) = (f64::from(COLOURS[low][i]), f64::from(COLOURS[low + 1][i]));
        (a + (b - a) * share).round() as u8
    })
}

/// The picture at another size, nearest pixels.
fn enlarged(picture: &Picture, width: usize) -> Picture {
    let mut rgb = Vec::with_capacity(width * width * 3);
    for y in 0..width {
        for x in 0..width {
            let from = (y * picture.height / width * picture.width + x * picture.width / width) * 3;
            rgb.extend_from_slice(&picture.rgb[from..from + 3]);
        }
    }
    Picture::new(width, width, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_brighter() {
        let brightness = |value| colour(value).iter().map(|&byte| u32::from(byte)).sum::<u32>();
        assert!((0..100).all(|i| brightness(f64::from(i) / 100.0) <= brightness(f64::from(i + 1) / 100.0)));
        assert_eq!((colour(-1.0), colour(0.25), colour(2.0)), (COLOURS[0], COLOURS[1], COLOURS[4]));
    }

    #[test]
    fn one_cell_per_token_and_the_numbers_beside_it() {
        let of = |i: usize| DrawStats { entropy: i as f64, kept: 1.0, chosen: 0.5 };
        let stats: Vec<[DrawStats; 2]> = (0..4).map(|i| [of(i), of(i)]).collect();
        let picture = Picture::new(8, 8, vec![7; 8 * 8 * 3]);
        let (drawn, numbers) = draw(&picture, &stats, [64, 4096]);
        let json: serde_json::Value = serde_json::from_str(&numbers).unwrap();
        assert_eq!(json["low_bits"]["entropy_nats"], serde_json::json!([0.0, 1.0, 2.0, 3.0]));
        assert_eq!(json["high_bits"]["chosen"][3], 0.5);
        assert!(drawn.width > 4 * LEAST_WIDTH);
        let map = heat_map([0.0, 1.0, 0.25, 0.5].into_iter(), 2, 3);
        let at = |x: usize, y: usize| &map.rgb[(y * 6 + x) * 3..][..3];
        assert_eq!((at(0, 0), at(5, 2), at(2, 5)), (&COLOURS[0][..], &COLOURS[4][..], &COLOURS[1][..]));
    }
}
