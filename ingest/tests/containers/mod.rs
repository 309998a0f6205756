//! Shared by the tests of containers: the same images as a folder, as tars, as WebDataset shards and as Parquet.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod parquet;
pub(crate) mod table;
pub(crate) mod tar;

use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tokengrid_ingest::{Source, SourceOptions};

/// Class folders of the images.
pub(crate) const CLASSES: [&str; 3] = ["n01440764", "n01443537", "n15075141"];

/// An image of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its key in class folders.
    pub key: String,
    pub label: i32,
    pub bytes: Vec<u8>,
}

impl Image {
    /// The file name.
    pub(crate) fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(self.key.as_str(), |(_, name)| name)
    }
}

/// Fifteen images in three classes, in the order of their keys: five real ones in each, of the golden set.
pub(crate) fn images() -> Vec<Image> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/preprocess/in");
    let names = ["tiny_17x13.JPEG", "tall_33x900.JPEG", "wide_2000x40.JPEG", "optimized_tables.JPEG", "one_pixel.png"];
    let mut images = Vec::new();
    for (label, class) in CLASSES.iter().enumerate() {
        // The same picture in every class; the bytes after its end differ.
        for (number, name) in [10026, 10027, 2, 3, 400].into_iter().zip(names) {
            let mut bytes = fs::read(fixtures.join(name)).expect("fixture");
            bytes.extend_from_slice(class.as_bytes());
            images.push(Image { key: format!("{class}/{class}_{number}.JPEG"), label: label as i32, bytes });
        }
    }
    images.sort_by(|a, b| a.key.cmp(&b.key));
    images
}

/// The images in an order that is independent of their keys.
pub(crate) fn shuffled(images: &[Image]) -> Vec<Image> {
    (0..images.len()).map(|i| images[(i * 7 + 3) % images.len()].clone()).collect()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary folder")
}

pub(crate) fn write(root: &Path, file: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = root.join(file);
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(&path, bytes).expect("file");
    path
}

pub(crate) fn open(path: &Path) -> Source {
    Source::open(path, &SourceOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn error(path: &Path) -> String {
    let error = Source::open(path, &SourceOptions::default()).expect_err("an error");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

/// All readable images of a source.
pub(crate) fn good(source: &Source) -> Vec<Image> {
    let mut bytes = Vec::new();
    let mut image = |i| {
        source.read(i, &mut bytes).ok()?;
        Some(Image { key: source.key(i).to_owned(), label: source.label(i), bytes: bytes.clone() })
    };
    (0..source.len()).filter_map(&mut image).collect()
}

/// Key and reason of all unreadable images of a source.
pub(crate) fn bad(source: &Source) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    let mut item = |i| Some((source.key(i).to_owned(), source.read(i, &mut bytes).err()?.to_string()));
    (0..source.len()).filter_map(&mut item).collect()
}

pub(crate) fn keys(source: &Source) -> Vec<&str> {
    (0..source.len()).map(|i| source.key(i)).collect()
}
