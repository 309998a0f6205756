//! Small caches, and runs that train in seconds.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::{json, photos, sorted, text, tokengrid};
use std::path::{Path, PathBuf};

pub(crate) fn cache(folder: &Path) -> PathBuf {
    let out = folder.join("cache");
    let source = photos(folder, 3, 2);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)]);
    out
}

/// Arguments for a model that trains in seconds, followed by `settings`.
pub(crate) fn arguments(cache: &Path, out: &Path, settings: &[&str]) -> Vec<String> {
    let model =
        ["preset=tiny", "dim=32", "n_head=2", "class_num=3", "block_size=16", "spatial_n_layer=2", "ffn_dropout=0.1"];
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(out), "--threads", "1", "--device", "cpu"];
    let model = model.iter().map(|key| format!("model.{key}"));
    let train = settings.iter().map(|key| format!("train.{key}"));
    let settings = model.chain(train).flat_map(|setting| ["--set".to_string(), setting]);
    fixed.iter().map(|s| s.to_string()).chain(settings).collect()
}

pub(crate) fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    sorted(folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

pub(crate) fn rows(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn printed(arguments: &[&str]) -> (String, String) {
    let output = tokengrid().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// An array file of little-endian integers of 8 bytes.
pub(crate) fn npy(path: &Path, shape: &str, values: impl Iterator<Item = i64>) {
    let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({shape}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.for_each(|value| bytes.extend(value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A cache of `images` grids whose tokens of `bits` bits follow a rule, of `classes` classes.
pub(crate) fn made_up_cache(folder: &Path, images: i64, side: i64, bits: u32, classes: i64) -> PathBuf {
    let (tokens, labels, out) = (folder.join("t.npy"), folder.join("l.npy"), folder.join("made-up"));
    let token = move |i: i64| (i * 40_503 + i / 7 * 65_537) % (1 << bits);
    npy(&tokens, &format!("{images}, {}", side * side), (0..images * side * side).map(token));
    npy(&labels, &format!("{images},"), (0..images).map(|i| i % classes));
    let (grid, bits) = (format!("{side}x{side}"), bits.to_string());
    let fixed = ["cache", "import", "--tokens", text(&tokens), "--labels", text(&labels), "--grid", &grid];
    json(&[&fixed[..], &["--bits", &bits, "--out", text(&out)]].concat());
    out
}
