//! Shared by the tests: the golden images, and generated files.
#![allow(dead_code, reason = "each test file uses a part of it")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokengrid_ingest::{RgbImage, Source, SourceOptions};

/// `tests/fixtures/preprocess`.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/preprocess")
}

/// The entries of `expected.json`: (file name, entry).
pub(crate) fn expectations() -> Vec<(String, Value)> {
    let text = fs::read_to_string(golden().join("expected.json")).expect("expected.json");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let images = json["images"].as_object().expect("images");
    images.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

/// Parts of a picture of different colours, from the top to the bottom.
const BANDS: usize = 8;

/// The reference's output for an input: 8-bit RGB, as checksums of its pixels.
#[derive(Debug)]
pub(crate) struct Output {
    pub width: u32,
    pub height: u32,
    /// CRC-32 of rows `i * height / 8` to `(i + 1) * height / 8`, without the last.
    bands: Vec<u32>,
}

impl Output {
    /// Fails with the rows that differ.
    #[track_caller]
    pub(crate) fn assert_same(&self, what: &str, pixels: &[u8]) {
        assert_eq!(pixels.len(), (self.width * self.height * 3) as usize, "{what}: sizes");
        let (rows, row_bytes) = (self.height as usize, self.width as usize * 3);
        let band = |i: usize| i * rows / BANDS..(i + 1) * rows / BANDS;
        let checksum = |i: usize| {
            let mut crc = flate2::Crc::new();
            crc.update(&pixels[band(i).start * row_bytes..band(i).end * row_bytes]);
            crc.sum()
        };
        let different: Vec<_> = (0..BANDS).filter(|i| checksum(*i) != self.bands[*i]).map(band).collect();
        assert!(different.is_empty(), "{what}: pixels differ from Pillow's in rows {different:?} of {rows}");
    }
}

/// The reference's outputs in `outputs.txt`, by `<input>.<size>` for the centre crop and
/// `<input>.<size>.resized` for all of the resized picture.
pub(crate) fn outputs() -> BTreeMap<String, Output> {
    let text = fs::read_to_string(golden().join("outputs.txt")).expect("outputs.txt");
    let output = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next().expect("a name").to_owned();
        let mut number = || words.next().expect("a size").parse().expect("a number");
        let (width, height) = (number(), number());
        let bands: Vec<u32> = words.map(|word| u32::from_str_radix(word, 16).expect("a checksum")).collect();
        assert_eq!(bands.len(), BANDS, "{name}");
        (name, Output { width, height, bands })
    };
    text.lines().map(output).collect()
}

pub(crate) fn input(name: &str) -> Vec<u8> {
    fs::read(golden().join("in").join(name)).expect("golden input")
}

/// Reads an 8-bit RGB PNG with a decoder of another crate.
pub(crate) fn read_png(path: &Path) -> RgbImage {
    let file = std::io::BufReader::new(fs::File::open(path).expect("golden output"));
    let mut reader = png::Decoder::new(file).read_info().expect("PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("size")];
    let info = reader.next_frame(&mut pixels).expect("PNG data");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    RgbImage { width: info.width, height: info.height, pixels, warnings: 0 }
}

/// The Python that `TOKENGRID_PYTHON` names, if it has Pillow 13 or newer; otherwise the test is skipped.
#[track_caller]
pub(crate) fn python_with_pillow() -> Option<PathBuf> {
    let check = "import PIL; assert int(PIL.__version__.split('.')[0]) >= 13, PIL.__version__";
    tokengrid_test_support::python_with(check).map(PathBuf::from)
}

/// A folder of `count` small valid images.
pub(crate) fn small_images(count: usize) -> (TempDir, Arc<Source>) {
    let root = tempfile::tempdir().expect("temporary folder");
    let bytes = input("tiny_17x13.JPEG");
    (0..count).for_each(|i| fs::write(root.path().join(format!("{i:05}.jpg")), &bytes).expect("file"));
    let source = Source::open(root.path(), &SourceOptions::default()).expect("source");
    (root, Arc::new(source))
}

/// Fails with the number of differing samples and the largest difference.
pub(crate) fn assert_same_pixels(what: &str, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len(), "{what}: sizes");
    let differences = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0);
    let (count, largest) = differences.fold((0, 0), |(n, max), d| (n + 1, d.max(max)));
    assert_eq!(count, 0, "{what}: {count} of {} samples differ, by up to {largest}", ours.len());
}
