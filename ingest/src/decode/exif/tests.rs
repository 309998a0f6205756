//! Small files with an orientation, and Pillow's result for each (`scripts/pillow/exif_fixtures.py`).

use super::exif_orientation;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exif")
}

fn expected() -> BTreeMap<String, u8> {
    let text = fs::read_to_string(folder().join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_file_is_rotated_as_by_pillow() {
    let expected = expected();
    assert!(expected.len() > 70 && (1..=8).all(|o| expected.values().any(|e| *e == o)), "{} files", expected.len());
    let differing: Vec<_> = expected
        .iter()
        .map(|(name, theirs)| (name, theirs, exif_orientation(&fs::read(folder().join(name)).expect("fixture"))))
        .filter(|(_, theirs, ours)| *theirs != ours)
        .collect();
    assert!(differing.is_empty(), "(file, Pillow's, ours): {differing:?}");
}

#[test]
fn a_cut_file_still_has_an_orientation() {
    for name in expected().keys() {
        let bytes = fs::read(folder().join(name)).expect("fixture");
        for length in 0..bytes.len() {
            assert!((1..=8).contains(&exif_orientation(&bytes[..length])), "{name} cut to {length}");
        }
    }
}
