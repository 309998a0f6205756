//! The inspector's sources: one for each split, and one that is not the cache's.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/viewer.rs"]
mod viewer;

use common::{fails, json, photos, sorted, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::time::{Duration, Instant};
use viewer::Viewer;
#[cfg(unix)]
use viewer::{PATIENCE, made_cache, stopped};

/// A cache of two splits, whose images have the same keys, and the options that name its sources.
fn split_cache(temp: &Path) -> (PathBuf, [String; 2]) {
    let all = photos(temp, 2, 4);
    let sources = ["train", "val"].map(|name| temp.join(name));
    let mut inputs = Vec::new();
    for (split, source) in sources.iter().enumerate() {
        for class in sorted(&all) {
            let into = source.join(class.file_name().unwrap());
            std::fs::create_dir_all(&into).unwrap();
            for image in 0..2 {
                std::fs::copy(&sorted(&class)[2 * split + image], into.join(format!("{image}.jpg"))).unwrap();
            }
        }
        let part = source.with_extension("cache");
        json(&["tokenize", text(source), "--tokenizer", "tiny", "--size", "32", "--out", text(&part)]);
        inputs.push(format!("{}={}", ["train", "val"][split], part.display()));
    }
    let cache = temp.join("cache");
    json(&["cache", "merge", text(&cache), &inputs[0], &inputs[1]]);
    (cache, ["train", "val"].map(|name| format!("{name}={}", temp.join(name).display())))
}

#[test]
fn a_cache_with_splits_has_a_source_for_each() {
    let temp = tempfile::tempdir().unwrap();
    let (cache, [train, val]) = split_cache(temp.path());
    // In whatever order they are typed.
    let viewer = Viewer::start(&cache, &["--source", &val, "--source", &train]);
    for row in 0..8 {
        let found = viewer.json(&format!("/api/row/{row}"));
        assert_eq!(found["origin"]["label"], found["label"], "{found}");
    }
    let source = viewer.json("/api/overview")["source"].clone();
    assert_eq!((&source["images"], &source["doubt"]), (&8.into(), &Value::Null), "{source}");
    let original = |viewer: &Viewer, row: usize| viewer.get(&format!("/picture/original/{row}.png")).2;
    let of_val = Viewer::start(&temp.path().join("val.cache"), &["--source", val.strip_prefix("val=").unwrap()]);
    for row in 0..4 {
        assert_ne!(original(&viewer, row), original(&viewer, 4 + row), "row {row}");
        assert_eq!(original(&viewer, 4 + row), original(&of_val, row), "row {row}");
    }
    for (typed, expected) in [
        (&["--source", text(temp.path())][..], "--source train=SOURCE --source val=SOURCE"),
        (&["--source", &train], "the cache has a split val, too"),
        (&["--source", "test=x"], "the cache has no split test"),
    ] {
        let message = fails(&[&["view", text(&cache), "--port", "0"], typed].concat(), 2);
        assert!(message.contains(expected), "{message}");
    }
}

/// A source that is not the cache's: the terminal says so, and the page too.
#[cfg(unix)]
#[test]
fn a_wrong_source_is_named_in_the_terminal() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 2);
    let cache = temp.path().join("cache");
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&cache)]);
    let other = temp.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(&sorted(&sorted(&source)[0])[0], other.join("another.jpg")).unwrap();
    let viewer = Viewer::start(&cache, &["--source", text(&other)]);
    let source = |viewer: &Viewer| viewer.json("/api/overview")["source"].clone();
    let started = Instant::now();
    while source(&viewer)["state"] == "running" && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let doubt = source(&viewer)["doubt"].as_str().unwrap().to_owned();
    assert!(doubt.contains("4 of 4 images"), "{doubt}");
    let (_, said) = stopped(viewer);
    assert!(said.contains("4 of 4 images of the cache"), "{said}");
    // A cache that says nothing of how its images were cut has no originals, whatever the source.
    let bare = temp.path().join("bare");
    made_cache(&bare, 4, |_, _, _| {});
    let viewer = Viewer::start(&bare, &["--source", text(&other)]);
    while source(&viewer)["state"] == "running" && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, said) = stopped(viewer);
    assert!(said.contains("there are no originals"), "{said}");
}
