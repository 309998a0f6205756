//! JPEG: arbitrary bytes after the start of a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokengrid_ingest::{JpegEntropy, Limits, decode_rgb};

const LIMITS: Limits = Limits {
    max_pixels: 1 << 16,
    max_jpeg_scans: 20,
    max_decode_bytes: 1 << 26,
    jpeg_entropy: JpegEntropy::Own,
};

fuzz_target!(|bytes: &[u8]| {
    // Other formats have their own targets.
    if !bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return;
    }
    if let Ok(image) = decode_rgb(bytes, &LIMITS) {
        assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
        // Decoding a file must not depend on the file before it.
        assert_eq!(decode_rgb(bytes, &LIMITS).as_ref(), Ok(&image));
    }
});
