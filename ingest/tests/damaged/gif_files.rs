//! GIF: canvases, frames, colour tables and LZW data that lie.

use crate::corpus::{Files, patched, seed};

/// A file of one frame without an extension: global table of four colours if any, codes from 2 bits.
fn gif(canvas: [u16; 2], frame: [u16; 4], table: bool, code_bits: u8, blocks: &[u8]) -> Vec<u8> {
    let flags = if table { 0x81 } else { 0 };
    let colors: &[u8] = if table { &[0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255] } else { &[] };
    [
        &b"GIF89a"[..],
        &canvas.map(u16::to_le_bytes).concat(),
        &[flags, 0, 0],
        colors,
        b",",
        &frame.map(u16::to_le_bytes).concat(),
        &[0, code_bits],
        blocks,
        b"\0;",
    ]
    .concat()
}

/// A block of 3-bit codes, lowest bits first.
fn codes(codes: &[u32]) -> Vec<u8> {
    let bits = codes.iter().rev().fold(0u64, |bits, code| bits << 3 | u64::from(*code));
    let bytes = &bits.to_le_bytes()[..(codes.len() * 3).div_ceil(8)];
    [&[bytes.len() as u8], bytes].concat()
}

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        assert!(files.insert(format!("gif_{name}.gif"), bytes).is_none(), "{name} twice");
    };
    // Clear, then pixel by pixel (with clear codes between, so that codes stay at 3 bits), then the end.
    let four = codes(&[4, 1, 4, 2, 4, 3, 4, 0, 5]);
    let frame = [0, 0, 2, 2];
    add("sound", gif([2, 2], frame, true, 2, &four));
    add("bomb_60000", gif([60_000, 60_000], frame, true, 2, &four));
    add("bomb_65535", gif([u16::MAX, u16::MAX], frame, true, 2, &four));
    add("bomb_frame", gif([2, 2], [u16::MAX, u16::MAX, 1, 1], true, 2, &four));
    add("large_claim", gif([12_000, 12_000], [0, 0, 12_000, 12_000], true, 2, &four));
    add("no_canvas", gif([0, 0], frame, true, 2, &four));
    add("no_frame", gif([2, 2], [0, 0, 0, 0], true, 2, &four));
    add("frame_without_height", gif([2, 2], [0, 0, 2, 0], true, 2, &four));
    add("frame_inside", gif([5, 4], [2, 1, 2, 2], true, 2, &four));
    add("frame_sticks_out", gif([2, 2], [3, 4, 2, 2], true, 2, &four));
    add("no_table", gif([2, 2], frame, false, 2, &four));
    for bits in [0, 1, 11, 12, 13, 255] {
        add(&format!("code_bits_{bits}"), gif([2, 2], frame, true, bits, &four));
    }
    add("no_clear_code", gif([2, 2], frame, true, 2, &codes(&[1, 2, 3, 0, 5])));
    add("first_code_too_large", gif([2, 2], frame, true, 2, &codes(&[4, 6, 1, 5])));
    add("code_too_large", gif([2, 2], frame, true, 2, &codes(&[4, 1, 7, 5])));
    add("code_defines_itself", gif([2, 2], frame, true, 2, &codes(&[4, 1, 6, 5])));
    add("early_end_code", gif([2, 2], frame, true, 2, &codes(&[4, 1, 5, 0])));
    add("too_much_data", gif([2, 2], frame, true, 2, &codes(&[4, 1, 4, 2, 4, 3, 4, 0, 4, 1, 4, 2, 5])));
    add("endless_clear_codes", gif([2, 2], frame, true, 2, &codes(&[4; 20])));
    add("no_blocks", gif([2, 2], frame, true, 2, &[]));
    add("block_too_long", gif([2, 2], frame, true, 2, &[200, 0x8C, 0x2D]));
    add("only_header", seed("plain.gif")[..13].to_vec());
    add("no_image", [&seed("plain.gif")[..13], b";"].concat());
    add("table_cut", seed("plain.gif")[..40].to_vec());
    add("version", patched("plain.gif", &[(4, b"8")]));
    add("table_too_short", patched("plain.gif", &[(10, &[0x80])]));
    let head = gif([2, 2], frame, true, 2, &four);
    let with_extension = |extension: &[u8]| [&head[..25], extension, &head[25..]].concat();
    add("extension_cut", with_extension(&[b'!', 249, 4, 1])[..29].to_vec());
    add("extension_empty", with_extension(&[b'!', 249, 0]));
    add("extension_short", with_extension(&[b'!', 249, 2, 0, 0, 0]));
    add("extension_short_transparent", with_extension(&[b'!', 249, 2, 1, 0, 0]));
    add("extension_unknown", with_extension(&[b'!', 7, 3, 1, 2, 3, 0]));
    // What Pillow reads of an extension without blocks depends on its kind.
    for label in [1, 7, 254, 255] {
        add(&format!("extension_{label}_empty"), with_extension(&[b'!', label, 0]));
        add(&format!("extension_{label}_empty_twice"), with_extension(&[b'!', label, 0, b'!', label, 0]));
        add(&format!("extension_{label}_empty_and_zero"), with_extension(&[b'!', label, 0, 0]));
        add(&format!("extension_{label}_of_two_blocks"), with_extension(&[b'!', label, 1, b'a', 2, b'b', b'c', 0]));
    }
    let netscape = |rest: &[u8]| with_extension(&[b"!\xFF\x0BNETSCAPE2.0", rest].concat());
    add("netscape", netscape(&[3, 1, 5, 0, 0]));
    add("netscape_without_count", netscape(&[0]));
    add("netscape_without_count_and_zero", netscape(&[0, 0]));
    add("netscape_longer_name", with_extension(b"!\xFF\x0CNETSCAPE2.0x\0\0"));
    add("transparent_beyond_table", with_extension(&[b'!', 249, 4, 1, 0, 0, 200, 0]));
    add("junk_before_frame", with_extension(&[1, 2, 3]));
    files
}
