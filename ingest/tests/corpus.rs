//! Every input that fuzzing has found worth keeping, once through what its target calls. Needs no fuzzer.

use std::fs;
use tokengrid_ingest::{Limits, Recipe, Source, SourceOptions, decode_rgb, exif_orientation, views_of};
use tokengrid_test_support::corpus;

const TARGETS: [&str; 6] = ["any_image", "exif", "jpeg", "parquet_source", "png", "tar_index"];

/// What the targets for images do with an input.
fn decode(bytes: &[u8]) {
    let limits = Limits { max_pixels: 1 << 16, max_jpeg_scans: 20, ..Limits::default() };
    assert!((1..=8).contains(&exif_orientation(bytes)));
    let Ok(image) = decode_rgb(bytes, &limits) else { return };
    assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
    let views = views_of(&image, "key", &Recipe { size: 5, ..Recipe::default() }).expect("views");
    assert_eq!(views[0].pixels.len(), 75);
}

/// What the targets for containers do with an input.
fn read_source(bytes: &[u8], name: &str) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("file");
    let Ok(source) = Source::open(&path, &SourceOptions::default()) else { return };
    let mut image = Vec::new();
    for index in 0..source.len() {
        if source.read(index, &mut image).is_ok() {
            assert!(!source.key(index).is_empty());
        }
    }
}

#[test]
fn every_kept_input_is_read_or_refused() {
    for target in TARGETS {
        for (_, bytes) in corpus(env!("CARGO_MANIFEST_DIR"), target) {
            match target {
                "tar_index" => read_source(&bytes, "x.tar"),
                "parquet_source" => read_source(&bytes, "x.parquet"),
                _ => decode(&bytes),
            }
        }
    }
}
