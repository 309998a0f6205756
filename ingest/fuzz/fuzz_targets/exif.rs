//! The orientation of any file, and of any bytes as the Exif data of a JPEG file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokengrid_ingest::exif_orientation;

fuzz_target!(|bytes: &[u8]| {
    assert!((1..=8).contains(&exif_orientation(bytes)));
    let length = (bytes.len().min(60_000) + 8) as u16;
    let segment = [b"\xFF\xD8\xFF\xE1", &length.to_be_bytes()[..], b"Exif\0\0", &bytes[..bytes.len().min(60_000)]];
    let file = [&segment.concat()[..], b"\xFF\xDA\0\x02"].concat();
    assert!((1..=8).contains(&exif_orientation(&file)));
});
