//! A corpus of damaged files, made here from small sound ones: for each the verdict and the pixels of Pillow, no hang, and
//! less than a gibibyte of memory for all of them.
//!
//! `fixtures/damaged/expected.json` is Pillow's side; `scripts/pillow/damaged_corpus.py` says how it is made.

mod bitmap_files;
mod corpus;
mod gif_files;
mod jpeg_files;
mod other_files;
mod png_files;
mod webp_files;

use corpus::{corpus, fixtures};
use flate2::Crc;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;
use tokengrid_ingest::{Limits, decode_rgb, exif_orientation, jpeg_simd};

/// Files whose verdict is not Pillow's, each for a reason.
const KNOWN: [(&str, &str); 4] = [
    ("many_scans.jpg", "more than 500 scans: each costs a pass over the picture, and a small file may hold millions"),
    ("very_many_scans.jpg", "the same with a million scans"),
    ("lossless.jpg", "only version 3 of libjpeg-turbo, which Pillow has, decodes lossless JPEG"),
    ("end_is_frame.jpg", "version 3 objects to a second frame header before it has read its length"),
];

/// The most memory that the corpus may take, in kB.
const MAX_PEAK_KB: u64 = 1 << 20;

/// Set for the child process that decodes.
const CHILD: &str = "TOKENGRID_DAMAGED_CHILD";

/// What Pillow made of a file.
#[derive(Deserialize)]
struct Expected {
    file_crc: u32,
    ok: bool,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    #[serde(default)]
    crc: u32,
}

fn expected() -> BTreeMap<String, Expected> {
    let text = std::fs::read_to_string(fixtures().join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What is wrong with our answer, if anything.
fn compare(name: &str, bytes: &[u8], expected: &Expected) -> Result<(), String> {
    let image = match decode_rgb(bytes, &Limits::default()) {
        Err(e) if expected.ok => return Err(format!("rejected, but Pillow accepts it: {e}")),
        Ok(_) if !expected.ok => return Err("accepted, but Pillow rejects it".to_owned()),
        Err(_) => return Ok(()),
        Ok(image) => image,
    };
    assert!((1..=8).contains(&exif_orientation(bytes)), "{name}");
    if (image.width, image.height) != (expected.width, expected.height) {
        return Err(format!("{} x {}, Pillow has {} x {}", image.width, image.height, expected.width, expected.height));
    }
    // libjpeg's C code decodes corrupt data to other pixels than its SIMD code, which Pillow has.
    let comparable = jpeg_simd() || !name.ends_with(".jpg");
    if comparable && crc(&image.pixels) != expected.crc {
        return Err("other pixels than Pillow's".to_owned());
    }
    Ok(())
}

#[test]
fn every_file_is_in_the_table_as_it_was_when_pillow_saw_it() {
    let (files, expected) = (corpus(), expected());
    assert!(files.len() >= 200, "{} files", files.len());
    assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert_eq!(crc(bytes), expected[name].file_crc, "{name} is not the file that Pillow judged");
    }
    let accepted = expected.values().filter(|e| e.ok).count();
    assert!(accepted > 50 && files.len() - accepted > 100, "{accepted} accepted");
}

#[test]
fn every_damaged_file_has_the_fate_that_pillow_gives_it() {
    let (files, expected) = (corpus(), expected());
    let differing: Vec<_> = files
        .iter()
        .filter_map(|(name, bytes)| compare(name, bytes, &expected[name]).err().map(|what| (name.as_str(), what)))
        .collect();
    let (known, wrong): (Vec<_>, Vec<_>) =
        differing.into_iter().partition(|(name, _)| KNOWN.iter().any(|(file, _)| file == name));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(known.len(), KNOWN.len(), "a file that no longer differs must leave the list: {known:?}");
}

#[test]
fn the_whole_corpus_takes_less_than_a_gibibyte() {
    // A process of its own: its peak is that of the decoders alone.
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--exact", "--nocapture", "child_that_decodes"])
        .env(CHILD, "1")
        .output()
        .expect("the child starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let peak_kb = text.split("peak_kb=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a peak");
    let peak_kb: u64 = peak_kb.parse().expect("a number");
    eprintln!("peak resident memory (VmHWM): {peak_kb} kB");
    assert!(peak_kb < MAX_PEAK_KB, "{peak_kb} kB");
}

/// The child of the test above; on its own it does nothing.
#[test]
fn child_that_decodes() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    for bytes in corpus().values() {
        let _ = decode_rgb(bytes, &Limits::default());
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    println!("peak_kb={}", peak.trim().trim_end_matches(" kB"));
}

/// Writes the corpus for `scripts/pillow/damaged_corpus.py`, if a folder is given.
#[test]
fn write_the_corpus() {
    let Some(folder) = std::env::var_os("TOKENGRID_DAMAGED_OUT") else { return };
    std::fs::create_dir_all(&folder).expect("folder");
    for (name, bytes) in corpus() {
        std::fs::write(std::path::Path::new(&folder).join(name), bytes).expect("write");
    }
}
