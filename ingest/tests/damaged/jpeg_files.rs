//! JPEG: headers that lie, tables that are missing, restart markers, scans.

use crate::corpus::{Files, seed};

/// Where the segment of `marker` begins; its data begins four bytes later.
fn segment(bytes: &[u8], marker: u8) -> usize {
    let mut at = 2;
    loop {
        assert_eq!(bytes[at], 0xFF, "a marker");
        if bytes[at + 1] == marker {
            return at;
        }
        at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
}

/// Overwrites bytes of the data of a seed's first segment of `marker`.
fn patched(name: &str, marker: u8, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = seed(name);
    let data = segment(&bytes, marker) + 4;
    for (at, with) in patches {
        bytes[data + at..data + at + with.len()].copy_from_slice(with);
    }
    bytes
}

/// The seed without its first segment of `marker`.
fn without(name: &str, marker: u8) -> Vec<u8> {
    let mut bytes = seed(name);
    let at = segment(&bytes, marker);
    let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    bytes.drain(at..at + 2 + length);
    bytes
}

/// The seed with bytes put after its first two.
fn with_start(name: &str, start: &[u8]) -> Vec<u8> {
    let bytes = seed(name);
    [&bytes[..2], start, &bytes[2..]].concat()
}

/// The progressive seed with its first scan repeated.
fn scans(count: usize) -> Vec<u8> {
    let bytes = seed("progressive.jpg");
    let scan = segment(&bytes, 0xDA);
    let is_marker = |at: usize| bytes[at] == 0xFF && bytes[at + 1] != 0;
    let end = (scan + 14..bytes.len()).find(|at| is_marker(*at)).expect("the scan's end");
    [&bytes[..scan], &bytes[scan..end].repeat(count), &bytes[end..]].concat()
}

/// One gray pixel, coded without loss.
fn lossless() -> Vec<u8> {
    let frame = b"\xFF\xC3\0\x0B\x08\0\x01\0\x01\x01\x01\x11\0";
    let table = b"\xFF\xC4\0\x14\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let scan = b"\xFF\xDA\0\x08\x01\x01\0\x01\0\0\x7F";
    [&b"\xFF\xD8"[..], frame, table, scan, b"\xFF\xD9"].concat()
}

const SIZE: u8 = 0xC0;
const SCAN: u8 = 0xDA;

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        assert!(files.insert(format!("{name}.jpg"), bytes).is_none(), "{name} twice");
    };
    headers(&mut add);
    segments(&mut add);
    data(&mut add);
    add("lossless", lossless());
    add("many_scans", scans(2000));
    add("very_many_scans", scans(1_000_000));
    files
}

type Add<'a> = &'a mut dyn FnMut(&str, Vec<u8>);

fn headers(add: Add<'_>) {
    let sized = |w: u16, h: u16| patched("baseline.jpg", SIZE, &[(1, &h.to_be_bytes()), (3, &w.to_be_bytes())]);
    add("bomb_60000", sized(60_000, 60_000));
    add("bomb_65500", sized(65_500, 65_500));
    add("large_claim", sized(12_000, 12_000));
    add("no_width", sized(0, 18));
    add("no_height", sized(24, 0));
    add("bits_12", patched("baseline.jpg", SIZE, &[(0, &[12])]));
    add("components_2", patched("baseline.jpg", SIZE, &[(5, &[2])]));
    add("components_0", patched("baseline.jpg", SIZE, &[(5, &[0])]));
    add("sampling_0", patched("baseline.jpg", SIZE, &[(7, &[0])]));
    add("sampling_5", patched("baseline.jpg", SIZE, &[(7, &[0x55])]));
    add("sampling_3_1", patched("baseline.jpg", SIZE, &[(7, &[0x31])]));
    add("sampling_1_2", patched("baseline.jpg", SIZE, &[(7, &[0x12])]));
    add("same_component_twice", patched("baseline.jpg", SIZE, &[(9, &[1])]));
    add("table_3", patched("baseline.jpg", SIZE, &[(8, &[3])]));
    let with_marker = |marker: u8| {
        let mut bytes = seed("baseline.jpg");
        let at = segment(&bytes, SIZE);
        bytes[at + 1] = marker;
        bytes
    };
    add("as_progressive", with_marker(0xC2));
    add("as_hierarchical", with_marker(0xC5));
    add("as_arithmetic", with_marker(0xC9));
    add("header_twice", {
        let bytes = seed("baseline.jpg");
        let at = segment(&bytes, SIZE);
        [&bytes[..at + 19], &bytes[at..]].concat()
    });
}

fn segments(add: Add<'_>) {
    add("no_size", without("baseline.jpg", SIZE));
    add("no_quantization", without("baseline.jpg", 0xDB));
    add("no_huffman", without("baseline.jpg", 0xC4));
    add("no_scan", without("baseline.jpg", SCAN));
    add("no_jfif", without("baseline.jpg", 0xE0));
    add("no_adobe", without("cmyk.jpg", 0xEE));
    add("huffman_overfull", patched("baseline.jpg", 0xC4, &[(1, &[200; 16])]));
    add("huffman_index", patched("baseline.jpg", 0xC4, &[(0, &[0x07])]));
    add("quantization_precision", patched("baseline.jpg", 0xDB, &[(0, &[0x20])]));
    add("quantization_zeros", patched("baseline.jpg", 0xDB, &[(1, &[0; 64])]));
    add("adobe_transform_0", patched("cmyk.jpg", 0xEE, &[(11, &[0])]));
    add("adobe_transform_2", patched("cmyk.jpg", 0xEE, &[(11, &[2])]));
    add("scan_component", patched("baseline.jpg", SCAN, &[(1, &[9])]));
    add("scan_tables", patched("baseline.jpg", SCAN, &[(2, &[0x33])]));
    add("scan_spectrum", patched("baseline.jpg", SCAN, &[(7, &[9, 3, 0])]));
    add("progressive_spectrum", patched("progressive.jpg", SCAN, &[(7, &[1, 63, 0])]));
    add("start_twice", with_start("baseline.jpg", &[0xFF, 0xD8]));
    add("marker_tem", with_start("baseline.jpg", &[0xFF, 0x01]));
    add("padded_marker", with_start("baseline.jpg", &[0xFF, 0xFF, 0xFF]));
    add("short_jfif", with_start("gray.jpg", b"\xFF\xE0\0\x07JFIF\0"));
    add("short_adobe", with_start("gray.jpg", b"\xFF\xEE\0\x08Adobe\0"));
    add("short_profile", with_start("gray.jpg", b"\xFF\xE2\0\x0FICC_PROFILE\0\x01"));
    add("segment_of_0", with_start("gray.jpg", b"\xFF\xE5\0\0"));
    add("segment_too_long", with_start("gray.jpg", b"\xFF\xE5\xFF\xFF"));
    add("photoshop_without_name", with_start("gray.jpg", b"\xFF\xED\0\x16Photoshop 3.0\x008BIM\x03\xED"));
    add("photoshop_cut", with_start("gray.jpg", b"\xFF\xED\0\x19Photoshop 3.0\x008BIM\x03\xED\0\0\0"));
    add("broken_exif", with_start("gray.jpg", b"\xFF\xE1\0\x10Exif\0\0NOTTIFF!"));
    add("number_of_lines", {
        let bytes = seed("gray.jpg");
        let end = bytes.len() - 2;
        [&bytes[..end], b"\xFF\xDC\0\x04\0\x12", &bytes[end..]].concat()
    });
}

fn data(add: Add<'_>) {
    let data_at = |name: &str| {
        let bytes = seed(name);
        let scan = segment(&bytes, SCAN);
        let length = usize::from(u16::from_be_bytes([bytes[scan + 2], bytes[scan + 3]]));
        (bytes, scan + 2 + length)
    };
    let (bytes, start) = data_at("restart.jpg");
    let markers: Vec<_> =
        (start..bytes.len() - 1).filter(|at| bytes[*at] == 0xFF && (0xD0..=0xD7).contains(&bytes[at + 1])).collect();
    assert!(markers.len() >= 2, "restart markers");
    let mut exchanged = bytes.clone();
    exchanged[markers[0] + 1] = 0xD5;
    add("restart_wrong", exchanged);
    add("restart_missing", [&bytes[..markers[1]], &bytes[markers[1] + 2..]].concat());
    add("restart_doubled", [&bytes[..markers[1] + 2], &bytes[markers[1]..]].concat());
    add("interval_missing", [&bytes[..markers[0] + 2], &bytes[markers[1] + 2..]].concat());
    let (bytes, start) = data_at("baseline.jpg");
    add("no_data", [&bytes[..start], b"\xFF\xD9"].concat());
    add("data_doubled", [&bytes[..bytes.len() - 2], &bytes[start..]].concat());
    add("data_all_ones", [&bytes[..start], &[0xFF, 0].repeat(100), b"\xFF\xD9"].concat());
    add("data_all_zeros", [&bytes[..start], &[0; 200], b"\xFF\xD9"].concat());
    add("end_is_restart", [&bytes[..bytes.len() - 1], &[0xD1]].concat());
    add("end_is_frame", {
        // With bytes in between, so that the last row does not wait for more.
        let end = bytes.len() - 2;
        [&bytes[..end], &[0; 20], &[0xFF, 0xC9]].concat()
    });
    add("early_end", [&bytes[..start + 20], b"\xFF\xD9"].concat());
    let (other, other_start) = data_at("sharp.jpg");
    add("data_of_another", [&bytes[..start], &other[other_start..]].concat());
    add("two_files", [seed("gray.jpg"), seed("baseline.jpg")].concat());
}
