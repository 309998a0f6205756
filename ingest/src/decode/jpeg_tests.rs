//! The fast decoder against libjpeg alone: the same pixels, warnings and verdicts, for valid files and for damaged ones.

use super::super::{Limits, jpeg_segments};
use super::*;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;

/// Parameters of a JPEG file to encode.
#[derive(Debug, Clone)]
struct Spec {
    width: u16,
    height: u16,
    color: ColorType,
    sampling: SamplingFactor,
    quality: u8,
    progressive: bool,
    optimized: bool,
    restart_interval: u16,
    seed: u64,
}

impl Spec {
    fn sound(width: u16, height: u16, sampling: SamplingFactor) -> Spec {
        let (color, quality) = (ColorType::Rgb, 90);
        Spec {
            width,
            height,
            color,
            sampling,
            quality,
            progressive: false,
            optimized: false,
            restart_interval: 0,
            seed: 1,
        }
    }

    /// Smooth shapes with noise on them.
    fn pixels(&self) -> Vec<u8> {
        let channels = match self.color {
            ColorType::Luma => 1,
            ColorType::Rgb => 3,
            _ => 4,
        };
        let mut state = self.seed | 1;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 59
        };
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let sample = |i: u64| {
            let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
            ((x * (3 + c) + y * (5 - c)) / 4 + (x * y / 64) * (c + 1) + noise()) as u8
        };
        (0..width * height * channels).map(sample).collect()
    }

    fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, self.quality);
        encoder.set_sampling_factor(self.sampling);
        encoder.set_progressive(self.progressive);
        // With restart markers this encoder's optimized tables make files for which libjpeg warns.
        encoder.set_optimized_huffman_tables(self.optimized && self.restart_interval == 0);
        if self.restart_interval > 0 {
            encoder.set_restart_interval(self.restart_interval);
        }
        encoder.encode(&self.pixels(), self.width, self.height, self.color).expect("a JPEG file");
        file
    }
}

fn specs() -> impl Strategy<Value = Spec> {
    use SamplingFactor::*;
    let size = prop_oneof![1u16..40, 60u16..260];
    let color = prop_oneof![
        6 => Just(ColorType::Rgb),
        1 => Just(ColorType::Luma),
        1 => Just(ColorType::Cmyk),
        1 => Just(ColorType::CmykAsYcck),
    ];
    let sampling = prop::sample::select(vec![F_1_1, F_2_1, F_1_2, F_2_2, F_4_1, F_4_2, F_1_4, F_2_4]);
    let restarts = prop_oneof![3 => Just(0u16), 1 => 1u16..40];
    let kind = (prop::bool::weighted(0.15), any::<bool>(), restarts);
    (size.clone(), size, color, sampling, 1u8..=100, kind, any::<u64>()).prop_map(
        |(width, height, color, sampling, quality, (progressive, optimized, restart_interval), seed)| Spec {
            width,
            height,
            color,
            sampling,
            quality,
            progressive,
            optimized,
            restart_interval,
            seed,
        },
    )
}

/// A part of a picture, by four fractions.
fn part(width: u32, height: u32, [a, b, c, d]: [f64; 4]) -> Region {
    let along = |length: u32, a: f64, b: f64| {
        let (low, high) = (a.min(b) * f64::from(length), a.max(b) * f64::from(length));
        let first = (low as u32).min(length - 1);
        (first, (high.ceil() as u32).clamp(first + 1, length) - first)
    };
    let ((left, width), (top, height)) = (along(width, a, b), along(height, c, d));
    Region { left, top, width, height }
}

/// Offset of the first scan; 0 for a file whose segments Pillow refuses.
fn scans_at(file: &[u8]) -> usize {
    jpeg_segments::check(file).unwrap_or(0)
}

fn by_libjpeg(file: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut picture = Picture::default();
    let limits = Limits { jpeg_entropy: JpegEntropy::Libjpeg, ..Limits::default() };
    let mut all = |_, _| Ok(None);
    let mut gate = Gate::new(&limits, &mut all, 0, None);
    decode(file, scans_at(file), &mut gate, &mut picture).map(|()| picture.image)
}

/// Decodes both ways and compares; returns the part that was computed.
fn compare(file: &[u8], fractions: [f64; 4]) -> Option<Picture> {
    let mut picture = Picture::default();
    let mut needed = None;
    let mut ask = |width, height| {
        needed = Some(part(width, height, fractions));
        Ok(needed)
    };
    let limits = Limits::default();
    let mut gate = Gate::new(&limits, &mut ask, 0, None);
    let result = decode(file, scans_at(file), &mut gate, &mut picture);
    drop(gate);
    let whole = match (by_libjpeg(file), result) {
        (Ok(whole), Ok(())) => whole,
        (expected, result) => {
            assert_eq!(result.err(), expected.err());
            return None;
        }
    };
    let (needed, image) = (needed.expect("libjpeg read the header, so the size was known"), &picture.image);
    assert_eq!((picture.whole, image.warnings), ((whole.width, whole.height), whole.warnings));
    assert!(picture.left <= needed.left && needed.left + needed.width <= picture.left + image.width);
    assert!(picture.top <= needed.top && needed.top + needed.height <= picture.top + image.height);
    for y in needed.top..needed.top + needed.height {
        let row = |image: &RgbImage, left: u32, top: u32| {
            let start = ((y - top) * image.width + needed.left - left) as usize * 3;
            image.pixels[start..start + needed.width as usize * 3].to_vec()
        };
        assert!(row(image, picture.left, picture.top) == row(&whole, 0, 0), "row {y} of {needed:?}");
    }
    Some(picture)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_part_has_the_pixels_of_the_whole(spec in specs(), fractions in any::<[u16; 4]>()) {
        let fractions = fractions.map(|f| f64::from(f) / f64::from(u16::MAX));
        let picture = compare(&spec.file(), fractions);
        prop_assert_eq!(picture.map(|p| p.image.warnings), Some(0), "a sound file");
    }

    #[test]
    fn damage_is_judged_by_libjpeg(
        spec in specs(),
        fractions in any::<[u16; 4]>(),
        damage in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..4),
        cut in prop_oneof![Just(0usize), 1usize..5, 1usize..2000],
        garbage in prop::collection::vec(prop_oneof![Just(0xFFu8), any::<u8>()], 0..4),
    ) {
        let mut file = spec.file();
        let entropy = file.len() / 3; // most of the headers stay intact
        for (place, value) in damage {
            let at = entropy + ((file.len() - entropy) as f64 * place) as usize;
            file[at] = value;
        }
        file.truncate(file.len() - cut.min(file.len() - 3));
        file.extend(garbage);
        compare(&file, fractions.map(|f| f64::from(f) / f64::from(u16::MAX)));
    }
}

#[test]
fn only_the_part_and_its_margin_are_computed() {
    for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
        let wide = compare(&Spec::sound(500, 375, sampling).file(), [0.2, 0.8, 0.0, 1.0]).expect("sound");
        assert!((300..=300 + 2 * 24).contains(&wide.image.width) && wide.image.height == 375, "{}", wide.image.width);
        let tall = compare(&Spec::sound(375, 500, sampling).file(), [0.0, 1.0, 0.2, 0.8]).expect("sound");
        assert!(tall.image.width == 375 && (300..=300 + 2 * 24).contains(&tall.image.height), "{}", tall.image.height);
    }
}

#[test]
fn damage_outside_the_part_is_found_too() {
    let file = Spec::sound(400, 300, SamplingFactor::F_2_2).file();
    let top = [0.2, 0.8, 0.0, 0.3];
    assert!(compare(&file, top).is_some());
    assert!(compare(&file[..file.len() - 100], top).is_none(), "truncated far below the part");
    let mut marker = file.clone();
    let at = file.len() - 200;
    marker[at..at + 2].copy_from_slice(&[0xFF, 0xD9]);
    let picture = compare(&marker, top).expect("accepted by libjpeg");
    assert!(picture.image.warnings > 0 && picture.image.height == 300, "an early end: libjpeg decodes the whole file");
}

#[test]
fn a_truncated_file_is_valid_if_the_last_row_was_reached() {
    // Pillow feeds its decoder the whole file and requires the last row, not the end marker. Whether the row is reached
    // depends on the last code: libjpeg needs eight more bits before it looks up a code.
    let mut verdicts = [0, 0];
    for seed in 0..60 {
        let file = Spec { seed, quality: 60, ..Spec::sound(24, 24, SamplingFactor::F_1_1) }.file();
        let cut = compare(&file[..file.len() - 2], [0.0, 1.0, 0.0, 1.0]);
        verdicts[usize::from(cut.is_some())] += 1;
        if let Some(picture) = cut {
            assert_eq!(picture.image.pixels, by_libjpeg(&file).expect("sound").pixels);
            assert_eq!(picture.image.warnings, 1, "the missing marker is a warning");
        }
    }
    assert!(verdicts.iter().all(|&n| n > 0), "{verdicts:?}");
}
