//! Shared by the tests: the golden images, and files to try things on.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokengrid_ingest::{RgbImage, Source, SourceOptions};

/// `tests/fixtures/preprocess`.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/preprocess")
}

/// What `expected.json` says about the inputs: (file name, entry).
pub fn expectations() -> Vec<(String, Value)> {
    let text = fs::read_to_string(golden().join("expected.json")).expect("expected.json");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let images = json["images"].as_object().expect("images");
    images.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

pub fn input(name: &str) -> Vec<u8> {
    fs::read(golden().join("in").join(name)).expect("golden input")
}

/// Reads an 8-bit RGB PNG with a decoder that is not this crate's.
pub fn read_png(path: &Path) -> RgbImage {
    let file = std::io::BufReader::new(fs::File::open(path).expect("golden output"));
    let mut reader = png::Decoder::new(file).read_info().expect("PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("size")];
    let info = reader.next_frame(&mut pixels).expect("PNG data");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    RgbImage { width: info.width, height: info.height, pixels, warnings: 0 }
}

/// The Python that `TOKENGRID_PYTHON` names, if it has Pillow 13 or newer; otherwise the test is left out.
#[track_caller]
pub fn python_with_pillow() -> Option<PathBuf> {
    let check = "import PIL; assert int(PIL.__version__.split('.')[0]) >= 13, PIL.__version__";
    tokengrid_test_support::python_with(check).map(PathBuf::from)
}

/// A folder of `count` small sound images.
pub fn small_images(count: usize) -> (TempDir, Arc<Source>) {
    let root = tempfile::tempdir().expect("temporary folder");
    let bytes = input("tiny_17x13.JPEG");
    (0..count).for_each(|i| fs::write(root.path().join(format!("{i:05}.jpg")), &bytes).expect("file"));
    let source = Source::open(root.path(), &SourceOptions::default()).expect("source");
    (root, Arc::new(source))
}

/// Fails with the number of differing samples and the largest difference.
pub fn assert_same_pixels(what: &str, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len(), "{what}: sizes");
    let differences = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0);
    let (count, largest) = differences.fold((0, 0), |(n, max), d| (n + 1, d.max(max)));
    assert_eq!(count, 0, "{what}: {count} of {} samples differ, by up to {largest}", ours.len());
}
