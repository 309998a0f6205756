//! Damaged and made-up files: an error or a picture, never a panic, a hang or a memory bill that the file did not pay for.

mod support;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use std::io::Write;
use support::{expectations, input};
use tokengrid_ingest::{DecodeError, Limits, RgbImage, decode_rgb};

fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode_rgb(bytes, &Limits::default())
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &crc.sum().to_be_bytes()].concat()
}

fn ihdr(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sizes[..], &[depth, color, 0, 0, 0]].concat())
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("deflate");
    encoder.finish().expect("deflate")
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE, &chunks.concat()].concat()
}

/// A 2 x 2 gray PNG with the samples 1, 2, 3, 4.
fn small_png(tail: &[Vec<u8>]) -> Vec<u8> {
    let data = chunk(b"IDAT", &deflate(&[0, 1, 2, 0, 3, 4]));
    png(&[&[ihdr(2, 2, 8, 0), data], tail].concat())
}

#[test]
fn a_png_may_end_after_its_picture() {
    let whole = small_png(&[chunk(b"IEND", &[])]);
    let expected = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4];
    assert_eq!(decode(&whole).expect("whole").pixels, expected);
    assert_eq!(decode(&small_png(&[])).expect("no IEND").pixels, expected);
    let cut = small_png(&[]);
    assert!(decode(&cut[..cut.len() - 4]).is_ok(), "nor IDAT's checksum");
    assert!(decode(&cut[..cut.len() - 8]).is_ok(), "nor the Adler-32");
    assert!(decode(&cut[..cut.len() - 12]).is_err(), "but the data");
    assert!(decode(&small_png(&[vec![1, 2, 3]])).is_ok(), "nor need what follows be a chunk");
    let mut half_chunk = chunk(b"tEXt", b"key\0value");
    half_chunk.truncate(12);
    assert!(decode(&small_png(&[half_chunk])).is_err(), "a chunk that begins must end");
}

#[test]
fn png_checksums_count_where_pillow_counts_them() {
    let flip = |mut bytes: Vec<u8>, from_end: usize| {
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        bytes
    };
    let (head, data) = (ihdr(2, 2, 8, 0), chunk(b"IDAT", &deflate(&[0, 1, 2, 0, 3, 4])));
    let text = chunk(b"tEXt", b"key\0value");
    assert!(decode(&png(&[flip(head.clone(), 1), data.clone()])).is_err(), "IHDR's checksum");
    assert!(
        decode(&png(&[head.clone(), flip(text.clone(), 1), data.clone()])).is_err(),
        "a checksum before the picture"
    );
    assert!(decode(&png(&[head.clone(), flip(data.clone(), 1)])).is_ok(), "IDAT's checksum");
    assert!(decode(&png(&[head.clone(), data.clone(), flip(text, 1)])).is_ok(), "a checksum after the picture");
    assert!(decode(&png(&[head, flip(data, 5)])).is_err(), "the Adler-32");
}

#[test]
fn png_data_may_be_cut_into_chunks_anywhere() {
    let data = deflate(&[0, 1, 2, 0, 3, 4]);
    for cut in 0..=data.len() {
        let (a, b) = data.split_at(cut);
        let file = png(&[ihdr(2, 2, 8, 0), chunk(b"IDAT", a), chunk(b"IDAT", &[]), chunk(b"IDAT", b)]);
        assert_eq!(decode(&file).expect("picture").pixels[9], 4, "cut at {cut}");
    }
}

#[test]
fn missing_palette_entries_are_black() {
    let data = chunk(b"IDAT", &deflate(&[0, 0, 1]));
    let file = |palette: &[u8]| png(&[ihdr(2, 1, 8, 3), chunk(b"PLTE", palette), data.clone()]);
    assert_eq!(decode(&file(&[9, 8, 7])).expect("picture").pixels, [9, 8, 7, 0, 0, 0]);
    assert_eq!(decode(&png(&[ihdr(2, 1, 8, 3), data.clone()])).expect("picture").pixels, [0; 6]);
}

#[test]
fn sizes_without_pixels_and_illegal_layouts_are_errors() {
    let data = chunk(b"IDAT", &deflate(&[0; 9]));
    for head in
        [ihdr(0, 2, 8, 0), ihdr(2, 0, 8, 0), ihdr(2, 2, 3, 0), ihdr(2, 2, 8, 1), ihdr(2, 2, 4, 2), ihdr(2, 2, 8, 7)]
    {
        assert!(decode(&png(&[head, data.clone()])).is_err());
    }
    assert!(decode(&png(&[data])).is_err(), "no IHDR");
    assert!(decode(&png(&[ihdr(2, 2, 8, 0), chunk(b"IEND", &[])])).is_err(), "no IDAT");
}

/// A JPEG header that claims a size, followed by what a real file has after its own.
fn resized_jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = input("gray.JPEG");
    let sof = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).expect("SOF0");
    bytes[sof + 5..sof + 7].copy_from_slice(&height.to_be_bytes());
    bytes[sof + 7..sof + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn claimed_sizes_are_checked_before_memory_is_taken() {
    assert!(matches!(decode(&resized_jpeg(65_500, 65_500)), Err(DecodeError::TooManyPixels { .. })));
    assert!(decode(&resized_jpeg(0, 10)).is_err());
    let gif = |w: u16, h: u16| {
        [&b"GIF89a"[..], &w.to_le_bytes(), &h.to_le_bytes(), &[0, 0, 0, b',', 0, 0, 0, 0, 1, 0, 1, 0, 0, 2]].concat()
    };
    assert!(matches!(decode(&gif(65_535, 65_535)), Err(DecodeError::TooManyPixels { .. })));
    assert!(matches!(decode(&gif(100, 100)), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_gif_may_end_inside_an_extension() {
    let file = [&b"GIF89a"[..], &[1, 0, 1, 0, 0, 0, 0, b'!', 249, 4, 1, 0, 0, 0, 0]].concat();
    for length in 13..file.len() {
        assert!(decode(&file[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn a_small_file_that_claims_a_legal_but_huge_picture_costs_little() {
    let before = peak_memory_kb();
    // 13,000 x 13,000 pixels are within the limit and would be half a gigabyte.
    let data = chunk(b"IDAT", &deflate(&[0; 100]));
    assert!(decode(&png(&[ihdr(13_000, 13_000, 8, 2), data])).is_err());
    let mut cut = resized_jpeg(13_000, 13_000);
    cut.truncate(cut.len() / 2);
    assert!(decode(&cut).is_err());
    // The kernel's count lags by a few pages per thread, so that it may seem to fall.
    let grown = peak_memory_kb().saturating_sub(before);
    assert!(grown < 200_000, "{grown} kB");
}

/// The most memory this process has ever used.
fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// The sound files of the damaged corpus: 24 x 18 pixels in every format.
fn small_seeds() -> Vec<(String, Vec<u8>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/damaged/seeds");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let named = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(&path).expect("seed"));
    paths.into_iter().map(named).collect()
}

#[test]
fn a_picture_of_exactly_the_limit_is_decoded_and_one_pixel_more_is_not() {
    let seeds = small_seeds();
    assert!(seeds.len() > 20);
    for (name, bytes) in seeds {
        let with = |max_pixels| decode_rgb(&bytes, &Limits { max_pixels, ..Limits::default() });
        assert_eq!(with(24 * 18).expect(&name).pixels.len(), 24 * 18 * 3, "{name}");
        let error = with(24 * 18 - 1).expect_err(&name);
        assert_eq!(error, DecodeError::TooManyPixels { width: 24, height: 18, limit: 431 }, "{name}");
    }
}

#[test]
fn what_was_decoded_in_spite_of_a_flaw_is_flagged() {
    let seeds = small_seeds();
    let warnings = |bytes: &[u8]| decode(bytes).expect("picture").warnings;
    for (name, bytes) in &seeds {
        assert_eq!(warnings(bytes), 0, "{name} is sound");
    }
    let seed = |name: &str| seeds.iter().find(|(path, _)| path.ends_with(name)).expect(name).1.clone();
    let png = seed("rgb.png");
    assert!(warnings(&png[..png.len() - 12]) > 0, "no IEND");
    assert!(
        warnings(&[&png[..png.len() - 13], &[png[png.len() - 13] ^ 1], &png[png.len() - 12..]].concat()) > 0,
        "CRC"
    );
    let gif = seed("plain.gif");
    assert!(warnings(&gif[..gif.len() - 1]) > 0, "no end mark");
    let mut larger = gif.clone();
    larger[6] -= 1;
    assert!(warnings(&larger) > 0, "a frame that sticks out");
    let table_end = 13 + (3 << ((gif[10] & 7) + 1));
    assert!(warnings(&[&gif[..table_end], b"junk", &gif[table_end..]].concat()) > 0, "stray bytes");
    let mut bmp = seed("rgb.bmp");
    bmp[2] += 9;
    assert!(warnings(&bmp) > 0, "shorter than it says");
}

#[test]
fn a_jpeg_with_very_many_scans_is_refused() {
    let bytes = input("progressive.JPEG");
    assert!(decode(&bytes).is_ok());
    let limits = Limits { max_jpeg_scans: 3, ..Limits::default() };
    let error = decode_rgb(&bytes, &limits).expect_err("more than three scans");
    assert!(matches!(&error, DecodeError::Unsupported { what, .. } if what.contains("3 scans")), "{error}");
}

#[test]
fn every_shortened_jpeg_is_truncated() {
    for name in ["tiny_17x13.JPEG", "progressive.JPEG", "cmyk.JPEG"] {
        let bytes = input(name);
        for length in (3..bytes.len()).rev().take(40).chain((3..bytes.len()).step_by(bytes.len() / 40 + 1)) {
            let error = decode(&bytes[..length]).expect_err(name);
            assert!(matches!(error, DecodeError::Truncated { .. }), "{name} cut to {length}: {error}");
        }
    }
}

#[test]
fn what_follows_the_end_of_a_jpeg_does_not_matter() {
    let mut bytes = input("tiny_17x13.JPEG");
    let clean = decode(&bytes).expect("picture");
    bytes.extend_from_slice(b"trailing \xFF\xD8\xFF garbage");
    assert_eq!(decode(&bytes).expect("picture"), clean);
}

#[test]
fn one_picture_does_not_change_the_next() {
    // Tables of a JPEG file must not serve a later file that lacks its own.
    let with_tables = input("jpeg_301x407_q85_s2.JPEG");
    let dht = with_tables.windows(2).position(|w| w == [0xFF, 0xC4]).expect("DHT");
    let mut without = with_tables.clone();
    without[dht + 1] = 0xEF; // an application segment
    let first = decode(&without);
    decode(&with_tables).expect("picture");
    assert_eq!(decode(&without), first);
}

/// Every input of the golden set that is not tens of kilobytes of entropy.
fn seeds() -> Vec<Vec<u8>> {
    expectations().into_iter().map(|(name, _)| input(&name)).filter(|bytes| bytes.len() < 60_000).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn damaged_files_are_decoded_or_refused(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        near_the_front in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut bytes = seed.get(&seeds).clone();
        for (place, value) in edits {
            let range = if near_the_front { bytes.len().min(64) } else { bytes.len() };
            if range > 0 {
                let at = place.index(range);
                bytes[at] = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let limits = Limits { max_pixels: 4_000_000, ..Limits::default() };
        if let Ok(image) = decode_rgb(&bytes, &limits) {
            prop_assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
        }
    }

    #[test]
    fn noise_behind_a_signature_is_decoded_or_refused(
        start in prop::sample::select(vec![
            &b"\xFF\xD8\xFF"[..], SIGNATURE, b"GIF89a", b"GIF87a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0WEBPVP8L",
            b"RIFF\x40\0\0\0WEBPVP8X",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let limits = Limits { max_pixels: 4_000_000, ..Limits::default() };
        let _ = decode_rgb(&[start, &rest].concat(), &limits);
    }
}
