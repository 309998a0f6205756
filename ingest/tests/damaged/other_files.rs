//! Files that are no images, whatever their names say.

use crate::corpus::{Files, Random};

pub(crate) fn files() -> Files {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..2000).map(|_| random.next() as u8).collect();
    let start = |bytes: &[u8]| [bytes, &noise[..]].concat();
    let files: [(&str, Vec<u8>); 19] = [
        ("empty.jpg", Vec::new()),
        ("one_byte.jpg", vec![0xFF]),
        ("start_only.jpg", vec![0xFF, 0xD8]),
        ("start_and_half.jpg", vec![0xFF, 0xD8, 0xFF]),
        ("start_and_end.jpg", vec![0xFF, 0xD8, 0xFF, 0xD9]),
        ("html.jpg", b"<!DOCTYPE html><html><body>403 Forbidden</body></html>".to_vec()),
        ("json.png", br#"{"error": "not found"}"#.to_vec()),
        ("text.gif", b"GIF89 is a format\n".to_vec()),
        ("git_lfs.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n".to_vec()),
        ("zeros.jpg", vec![0; 4096]),
        ("noise.jpg", noise.clone()),
        ("noise_after_start.jpg", start(b"\xFF\xD8\xFF\xE0\0\x10JFIF\0")),
        ("noise_after_signature.png", start(b"\x89PNG\r\n\x1a\n")),
        ("noise_after_header.gif", start(b"GIF89a\x10\0\x10\0\0\0\0")),
        ("noise_after_header.bmp", start(b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0\x18\0")),
        ("noise_after_header.webp", start(b"RIFF\0\x01\0\0WEBPVP8L\0\x01\0\0\x2F")),
        ("pdf.jpg", b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n".to_vec()),
        ("zip.jpg", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec()),
        ("wav.webp", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec()),
    ];
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
