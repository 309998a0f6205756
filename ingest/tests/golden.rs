//! Every image of the golden set, against what Pillow and torchvision made of it: equal to the bit, or rejected by both.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use support::{Output, expectations, input, outputs};
use tokengrid_ingest::{
    DecodeError, Kernel, Limits, Recipe, Region, Resampler, Resize, RgbImage, Views, decode_rgb, jpeg_simd,
    target_size, views_of, views_of_file,
};

/// A JPEG with corrupt entropy-coded data. Its pixels are those of libjpeg's SIMD code.
const CORRUPT: &str = "bad_bitrot.JPEG";

fn decode(name: &str) -> RgbImage {
    decode_rgb(&input(name), &Limits::default()).unwrap_or_else(|e| panic!("{name} is accepted by Pillow: {e}"))
}

/// The centre crop at every size that has a golden; returns how many were compared.
fn compare_crops(name: &str, outputs: &BTreeMap<String, Output>) -> usize {
    let image = decode(name);
    let mut compared = 0;
    for size in [128, 256] {
        let Some(output) = outputs.get(&format!("{name}.{size}")) else { continue };
        let recipe = Recipe { size, views: Views::Center, ..Recipe::default() };
        let views = views_of(&image, name, &recipe).expect("views");
        assert_eq!(views.len(), 1);
        output.assert_same(&format!("{name} at {size}"), &views[0].pixels);
        compared += 1;
    }
    compared
}

fn accepted() -> impl Iterator<Item = (String, Value)> {
    expectations().into_iter().filter(|(_, entry)| entry["ok"] == true)
}

#[test]
fn every_accepted_image_equals_the_reference_to_the_bit() {
    let outputs = outputs();
    let compared: usize = accepted()
        .filter(|(name, _)| name != CORRUPT)
        .map(|(name, _)| {
            let compared = compare_crops(&name, &outputs);
            assert!(compared > 0, "{name} has a golden output");
            compared
        })
        .sum();
    let elsewhere = 5 + adm_outputs(&outputs).count();
    assert_eq!(
        compared + elsewhere,
        outputs.len(),
        "all are compared: here, four whole resized images, one of corrupt data, those of ADM's recipe"
    );
}

/// Outputs of ADM's recipe: name of the input, side, what follows `.adm` in the name, pixels.
fn adm_outputs(outputs: &BTreeMap<String, Output>) -> impl Iterator<Item = (&str, u32, &str, &Output)> {
    outputs.iter().filter_map(|(name, output)| {
        let (input, factor) = name.split_once(".adm")?;
        let (input, size) = input.rsplit_once('.')?;
        Some((input, size.parse().expect("a side"), factor, output))
    })
}

#[test]
fn views_of_adms_recipe_equal_the_reference_to_the_bit() {
    let outputs = outputs();
    let mut halved = 0;
    for (name, size, factor, output) in adm_outputs(&outputs) {
        let views = match factor.strip_prefix('-') {
            None => Views::Center,
            Some(factor) => format!("ten-crop:{factor}").parse().expect("views"),
        };
        let recipe = Recipe { size, views, resize: Resize::Adm, ..Recipe::default() };
        // Through the decoder of parts: what it leaves out must not be missed.
        let views = views_of_file(&input(name), name, &recipe, &Limits::default()).expect("views");
        let pixels: Vec<u8> = views.into_iter().flat_map(|view| view.pixels).collect();
        output.assert_same(&format!("{name} at {size} with {recipe}"), &pixels);
        let image = decode(name);
        halved += usize::from(image.width.min(image.height) >= 2 * recipe.shorter_side());
        let whole: Vec<u8> =
            views_of(&image, name, &recipe).expect("views").into_iter().flat_map(|view| view.pixels).collect();
        assert_eq!(whole, pixels, "{name} at {size}");
    }
    assert!(halved > 5, "{halved}");
}

#[test]
fn a_corrupt_jpeg_equals_the_reference_to_the_bit_where_libjpeg_has_simd() {
    if !jpeg_simd() {
        eprintln!(
            "skipped: libjpeg was built without SIMD code (no nasm?), and its C code decodes corrupt data differently"
        );
        return;
    }
    assert_eq!(compare_crops(CORRUPT, &outputs()), 1);
}

#[test]
fn lossless_images_equal_the_reference_to_the_bit() {
    let lossless =
        |name: &str| [".png", ".bmp", ".webp", ".gif"].iter().any(|e| name.ends_with(e)) || name == "png_named.JPEG";
    let names: Vec<_> = accepted().map(|(name, _)| name).filter(|name| lossless(name)).collect();
    assert!(names.len() >= 18, "{names:?}");
    let outputs = outputs();
    names.iter().for_each(|name| assert!(compare_crops(name, &outputs) > 0, "{name}"));
}

#[test]
fn the_resized_image_has_the_size_that_torchvision_gives_it() {
    for (name, entry) in accepted() {
        let image = decode(&name);
        assert_eq!(entry["size"], serde_json::json!([image.width, image.height]), "{name}");
        for size in [128, 256] {
            let Some(expected) = entry.get(format!("resized_{size}")) else { continue };
            let (width, height) = target_size(image.width, image.height, size).expect("size");
            assert_eq!(*expected, serde_json::json!([width, height]), "{name} at {size}");
        }
    }
}

#[test]
fn whole_resized_images_equal_the_reference_with_every_kernel() {
    let (mut compared, outputs) = (0, outputs());
    for (name, _) in accepted() {
        for size in [128, 256] {
            let Some(expected) = outputs.get(&format!("{name}.{size}.resized")) else { continue };
            let image = decode(&name);
            let region = Region { left: 0, top: 0, width: expected.width, height: expected.height };
            for kernel in [Kernel::Scalar, Kernel::detect()] {
                let mut pixels = Vec::new();
                Resampler::new(kernel).resize_region(&image, (expected.width, expected.height), region, &mut pixels);
                expected.assert_same(&format!("{name} resized to {size} with {kernel:?}"), &pixels);
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 4);
}

#[test]
fn everything_that_the_reference_rejects_is_rejected() {
    let rejected: Vec<_> = expectations().into_iter().filter(|(_, entry)| entry["ok"] == false).collect();
    assert_eq!(rejected.len(), 9);
    for (name, entry) in rejected {
        let error = decode_rgb(&input(&name), &Limits::default()).err();
        assert!(error.is_some(), "{name} is rejected by Pillow: {}", entry["error"]);
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(!text.is_empty() && !text.contains('\n'), "{name}: one line: {text}");
    }
}

#[test]
fn a_reject_says_why() {
    let why = |name: &str| decode_rgb(&input(name), &Limits::default()).expect_err("rejected");
    assert_eq!(why("bad_empty.JPEG"), DecodeError::NoBytes);
    assert!(matches!(why("bad_html.JPEG"), DecodeError::Unrecognised { start } if start.contains('<')));
    assert!(matches!(why("bad_missing_last_byte.JPEG"), DecodeError::Truncated { .. }));
    assert!(matches!(why("bad_truncated_half.JPEG"), DecodeError::Truncated { .. }));
    assert!(matches!(why("bad_header_only.JPEG"), DecodeError::Truncated { .. }));
    let bomb = DecodeError::TooManyPixels { width: 60_000, height: 60_000, limit: 178_956_970 };
    assert_eq!(why("bad_bomb_60000x60000.png"), bomb);
}

#[test]
fn a_decoded_but_damaged_jpeg_carries_warnings() {
    assert!(decode(CORRUPT).warnings > 0);
    assert_eq!(decode("jpeg_500x375_q95_s2.JPEG").warnings, 0);
}
