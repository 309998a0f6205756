//! The encoder's statistics: histogram of |h|, drift, and speed.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, sorted, text};
use serde_json::Value;
use std::path::Path;

#[track_caller]
fn tokenize(source: &Path, out: &Path, more: &[&str]) -> Value {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "32", "--out", text(out)];
    json(&[&fixed[..], more].concat())
}

fn sum(counts: &Value) -> u64 {
    counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn every_bit_is_in_the_histogram_whatever_the_ranks_and_row_groups() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 4);
    let out = temp.path().join("cache");
    let made = tokenize(&source, &out, &["--rows-per-group", "2"]);
    let bits = 8 * 16 * 18;
    assert_eq!((sum(&made["margins"]), made["bits"].as_u64()), (bits, Some(bits)));
    let near: u64 = made["margins"].as_array().unwrap()[..4].iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(made["bits_in_margin"].as_u64(), Some(near));
    assert_eq!(made["drift"], Value::Null, "fp32 on the CPU is the exact mode");
    assert_eq!(json(&["cache", "info", text(&out)])["margins"], made["margins"]);
    json(&["cache", "verify", text(&out)]);

    let shared = temp.path().join("shared");
    for rank in ["1", "0"] {
        tokenize(&source, &shared, &["--rank", rank, "--world-size", "2", "--batch-size", "3", "--threads", "1"]);
    }
    assert_eq!(json(&["cache", "info", text(&shared)])["margins"], made["margins"]);

    // A shard that is gone comes back with its counts.
    let shard = sorted(&out).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
    let before = std::fs::read(&shard).unwrap();
    std::fs::remove_file(&shard).unwrap();
    json(&["cache", "repair", text(&out), "--source", text(&source), "--tokenizer", "tiny"]);
    assert!(std::fs::read(&shard).unwrap() == before, "the same bytes");
}

#[test]
fn bf16_tells_how_many_bits_it_changes() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 3);
    // Large enough views that some of their bits are near 0.
    let more = ["--size", "128", "--precision", "bf16", "--device", "cpu"];
    let out = temp.path().join("cache");
    let made = json(&[&["tokenize", text(&source), "--tokenizer", "tiny", "--out", text(&out)], &more[..]].concat());
    let drift = &made["drift"];
    let (bits, differing) = (drift["bits"].as_u64().unwrap(), drift["differing"].as_u64().unwrap());
    assert_eq!((drift["views"].as_u64(), bits), (Some(4), 4 * 256 * 18));
    assert!(differing > 0 && differing < bits / 10, "{drift}");
    assert!(drift["outside_margin"].as_u64().unwrap() <= differing);
}

#[test]
fn the_benchmark_compares_with_libtorch_and_says_on_what() {
    let figures =
        json(&["bench", "encode", "--tokenizer", "tiny", "--size", "16", "--batch-size", "2", "--rounds", "1"]);
    assert_eq!((figures["bits"].as_u64(), figures["differing_outside_margin"].as_u64()), (Some(2 * 4 * 18), Some(0)));
    assert_eq!((figures["precision"].as_str(), figures["tokens"].as_array().unwrap().len()), (Some("fp32"), 4));
    for positive in ["images_per_second", "seconds_per_image", "of_libtorch", "threads"] {
        assert!(figures[positive].as_f64().unwrap() > 0.0, "{positive}");
    }
    assert!(figures["machine"]["processor"].is_string());
    let message = fails(&["bench", "encode", "--architecture", "imagenet_512_L"], 2);
    assert!(message.contains("imagenet_256_L"), "{message}");
    let message = fails(&["bench", "encode", "--tokenizer", "tiny", "--size", "44"], 2);
    assert!(message.contains("multiple"), "{message}");
}
