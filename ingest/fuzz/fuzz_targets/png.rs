//! PNG whose checksums are corrected, so that the fuzzer reaches the code after their check.
#![no_main]

use flate2::Crc;
use libfuzzer_sys::fuzz_target;
use tokengrid_ingest::{JpegEntropy, Limits, decode_rgb};

const LIMITS: Limits = Limits {
    max_pixels: 1 << 16,
    max_jpeg_scans: 20,
    max_decode_bytes: 1 << 26,
    jpeg_entropy: JpegEntropy::Own,
};
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fuzz_target!(|bytes: &[u8]| {
    let file = with_right_checksums(bytes.strip_prefix(SIGNATURE).unwrap_or(bytes));
    if let Ok(image) = decode_rgb(&file, &LIMITS) {
        assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
    }
    let _ = decode_rgb(bytes, &LIMITS);
});

fn with_right_checksums(mut chunks: &[u8]) -> Vec<u8> {
    let mut file = SIGNATURE.to_vec();
    while let Some((length, rest)) = chunks.split_first_chunk::<4>() {
        let end = (u32::from_be_bytes(*length) as usize).saturating_add(4).min(rest.len());
        let (body, rest) = rest.split_at(end);
        let mut crc = Crc::new();
        crc.update(body);
        file.extend_from_slice(length);
        file.extend_from_slice(body);
        file.extend_from_slice(&crc.sum().to_be_bytes());
        chunks = rest.get(4..).unwrap_or_default();
    }
    file
}
