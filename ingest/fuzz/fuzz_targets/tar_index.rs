//! Any bytes as a tar: it opens or is refused, and what it lists is read or fails.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokengrid_ingest::{Source, SourceOptions};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("x.tar");
    std::fs::write(&path, bytes).expect("file");
    let Ok(source) = Source::open(&path, &SourceOptions::default()) else { return };
    let mut image = Vec::new();
    for index in 0..source.len() {
        if source.read(index, &mut image).is_ok() {
            assert!(image.len() <= bytes.len(), "an image larger than the tar");
        }
    }
});
