//! BMP: sizes, depths, palettes, offsets and run lengths that lie.

use crate::corpus::{Files, patched};

/// A file with a header of 40 bytes.
fn bmp(size: [i32; 2], bits: u16, compression: u32, colors: u32, palette: &[u8], pixels: &[u8]) -> Vec<u8> {
    let offset = 54 + palette.len() as u32;
    [
        &b"BM"[..],
        &(offset + pixels.len() as u32).to_le_bytes(),
        &[0; 4],
        &offset.to_le_bytes(),
        &40u32.to_le_bytes(),
        &size.map(i32::to_le_bytes).concat(),
        &1u16.to_le_bytes(),
        &bits.to_le_bytes(),
        &compression.to_le_bytes(),
        &[0; 12],
        &colors.to_le_bytes(),
        &[0; 4],
        palette,
        pixels,
    ]
    .concat()
}

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        assert!(files.insert(format!("bmp_{name}.bmp"), bytes).is_none(), "{name} twice");
    };
    let pixels = [7; 64];
    let palette: Vec<u8> = (0..16).flat_map(|i| [i * 15, 255 - i, i, 0]).collect();
    let sized = |w: i32, h: i32| bmp([w, h], 24, 0, 0, &[], &pixels);
    add("bomb_60000", sized(60_000, 60_000));
    add("bomb_i32", sized(i32::MAX, i32::MAX));
    add("large_claim", sized(12_000, 12_000));
    add("no_width", sized(0, 2));
    add("no_height", sized(2, 0));
    add("negative_width", sized(-2, 2));
    add("negative_height", sized(2, -2));
    add("least_height", sized(2, i32::MIN));
    add("height_16_million", sized(1, -16_777_217));
    for bits in [0, 2, 3, 5, 15, 48, 64] {
        add(&format!("bits_{bits}"), bmp([2, 2], bits, 0, 0, &palette, &pixels));
    }
    for (name, colors) in [("few", 3), ("many", 300), ("very_many", 70_000), ("endless", u32::MAX)] {
        add(&format!("colors_{name}"), bmp([2, 2], 8, 0, colors, &palette, &pixels));
        let table: Vec<u8> = palette.iter().copied().cycle().take(4 * 300).collect();
        add(&format!("colors_{name}_there"), bmp([2, 2], 8, 0, colors, &table, &pixels));
    }
    add("palette_overrun", bmp([4, 4], 8, 0, 16, &palette, &[200; 16]));
    let ramp: Vec<u8> = (0..=255).flat_map(|i| [i, i, i, 0]).collect();
    add("gray_ramp", bmp([4, 4], 8, 0, 256, &ramp, &[200; 16]));
    add("gray_ramp_4_bits", bmp([4, 4], 4, 0, 16, &ramp[..64], &[0x25; 64]));
    for (name, runs) in [
        ("sound", &[4, 1, 0, 0, 4, 2, 0, 0, 4, 3, 0, 0, 4, 4, 0, 1][..]),
        ("overrun", &[9, 1, 0, 0, 4, 2, 0, 0, 4, 3, 0, 0, 4, 4, 0, 1]),
        ("cut", &[4, 1, 0, 0, 4]),
        ("early_end", &[4, 1, 0, 1]),
        ("absolute_cut", &[0, 200, 1, 2]),
        ("jump", &[0, 2, 2, 1, 2, 3, 0, 0, 4, 1, 0, 0, 4, 2, 0, 1]),
        ("jump_far", &[0, 2, 255, 255, 4, 1]),
        ("jump_cut", &[0, 2, 1]),
        ("empty_runs", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        add(&format!("runs_{name}"), bmp([4, 4], 8, 1, 16, &palette, runs));
        add(&format!("runs4_{name}"), bmp([4, 4], 4, 2, 16, &palette, runs));
    }
    add("runs_large_claim", bmp([12_000, 12_000], 8, 1, 16, &palette, &[0, 1]));
    add("runs_24_bits", bmp([4, 4], 24, 1, 0, &[], &pixels));
    add("fields_unknown", bmp([2, 2], 16, 3, 0, &[], &pixels));
    add("compression_9", bmp([2, 2], 24, 9, 0, &[], &pixels));
    add("offset_0", patched("rgb.bmp", &[(10, &[0; 4])]));
    add("offset_behind_end", patched("rgb.bmp", &[(10, &[255; 4])]));
    add("offset_in_header", patched("palette.bmp", &[(10, &[20, 0, 0, 0])]));
    add("header_41", patched("rgb.bmp", &[(14, &[41])]));
    add("header_12", patched("rgb.bmp", &[(14, &[12])]));
    add("header_64", patched("rgb.bmp", &[(14, &[64])]));
    files
}
