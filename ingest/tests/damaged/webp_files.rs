//! WebP: containers whose parts contradict each other.

use crate::corpus::{Files, patched, seed};

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    [&kind[..], &(data.len() as u32).to_le_bytes(), data, &[0][..data.len() % 2]].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat()
}

fn extended(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let size = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    chunk(b"VP8X", &[&[flags, 0, 0, 0], &size(width)[..], &size(height)].concat())
}

/// The chunk that a simple file consists of.
fn bitstream(name: &str) -> Vec<u8> {
    seed(name)[12..].to_vec()
}

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        assert!(files.insert(format!("webp_{name}.webp"), bytes).is_none(), "{name} twice");
    };
    let (lossy, lossless) = (bitstream("lossy.webp"), bitstream("lossless.webp"));
    add("riff_longer", patched("lossy.webp", &[(4, &[255, 255])]));
    add("riff_shorter", patched("lossy.webp", &[(4, &[20, 0])]));
    add("riff_huge", patched("lossy.webp", &[(4, &[255; 4])]));
    add("chunk_longer", patched("lossy.webp", &[(16, &[255, 255])]));
    add("chunk_shorter", patched("lossy.webp", &[(16, &[20, 0])]));
    add("first_chunk_unknown", riff(&[chunk(b"ABCD", b"data"), lossy.clone()]));
    add("second_chunk_unknown", riff(&[lossy.clone(), chunk(b"ABCD", b"data")]));
    add("bomb_60000", riff(&[extended(0, 60_000, 60_000), lossy.clone()]));
    add("bomb_animation", riff(&[extended(2, 60_000, 60_000), lossy.clone()]));
    add("canvas_larger", riff(&[extended(0, 50, 50), lossy.clone()]));
    add("canvas_smaller", riff(&[extended(0, 10, 10), lossy.clone()]));
    add("canvas_right", riff(&[extended(0, 24, 18), lossy.clone()]));
    add("canvas_only", riff(&[extended(0, 24, 18)]));
    add("animation_without_frames", riff(&[extended(2, 24, 18), lossy.clone()]));
    add("alpha_flag_without_alpha", riff(&[extended(16, 24, 18), lossy.clone()]));
    add("alpha_empty", riff(&[extended(16, 24, 18), chunk(b"ALPH", &[]), lossy.clone()]));
    add("alpha_broken", riff(&[extended(16, 24, 18), chunk(b"ALPH", &[1, 2, 3]), lossy.clone()]));
    add("alpha_raw", riff(&[extended(16, 24, 18), chunk(b"ALPH", &[0; 1 + 24 * 18]), lossy.clone()]));
    add("alpha_before_lossless", riff(&[extended(16, 24, 18), chunk(b"ALPH", &[0; 433]), lossless.clone()]));
    add("two_pictures", riff(&[extended(0, 24, 18), lossy.clone(), lossless.clone()]));
    add("lossless_in_lossy", riff(&[chunk(b"VP8 ", &lossless[8..])]));
    add("lossy_in_lossless", riff(&[chunk(b"VP8L", &lossy[8..])]));
    add("lossless_signature", patched("lossless.webp", &[(20, &[0x2E])]));
    add("lossless_version", patched("lossless.webp", &[(24, &[0xF0])]));
    add("lossless_size", patched("lossless.webp", &[(21, &[255, 255, 255, 15])]));
    add("lossy_signature", patched("lossy.webp", &[(23, &[0])]));
    add("lossy_not_a_key_frame", patched("lossy.webp", &[(20, &[0x31])]));
    add("lossy_size_0", patched("lossy.webp", &[(26, &[0, 0])]));
    add("lossy_large_claim", patched("lossy.webp", &[(26, &[0xE0, 0x2E, 0xE0, 0x2E])]));
    add("lossy_partition", patched("lossy.webp", &[(20, &[0xF0, 255, 255])]));
    add("frame_outside", patched("animated.webp", &[(52, &[5])]));
    add("frame_length", patched("animated.webp", &[(48, &[20, 0])]));
    add("frame_size", patched("animated.webp", &[(58, &[200])]));
    files
}
