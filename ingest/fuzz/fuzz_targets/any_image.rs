//! Bytes of any kind: decoded, turned upright, resized and cropped, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokengrid_ingest::{JpegEntropy, Limits, Recipe, Views, decode_rgb, exif_orientation, views_of};

const LIMITS: Limits = Limits {
    max_pixels: 1 << 16,
    max_jpeg_scans: 20,
    max_decode_bytes: 1 << 26,
    jpeg_entropy: JpegEntropy::Own,
};

fuzz_target!(|bytes: &[u8]| {
    assert!((1..=8).contains(&exif_orientation(bytes)));
    let Ok(image) = decode_rgb(bytes, &LIMITS) else { return };
    assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
    assert!(u64::from(image.width) * u64::from(image.height) <= LIMITS.max_pixels);
    let recipe = Recipe { size: 5, views: Views::CenterFlip, ..Recipe::default() };
    let views = views_of(&image, "key", &recipe).expect("views of a decoded image");
    assert!(views.len() == 2 && views.iter().all(|view| view.pixels.len() == 75));
});
