//! `cache find --near` and `cache leak`, from the command line.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

#[path = "common/caches.rs"]
mod caches;
mod common;

use caches::tokenize;
use common::{fails, json, photos, sorted, text};

#[test]
fn rows_near_a_row_and_near_an_image_are_found_nearest_first() {
    let temp = tempfile::tempdir().unwrap();
    let (source, cache) = (photos(temp.path(), 3, 3), temp.path().join("cache"));
    let photo = sorted(&sorted(&source)[1])[2].clone();
    std::fs::copy(&photo, photo.with_file_name("zz-copy.jpg")).unwrap();
    tokenize(&source, &cache, &[]);
    let near = |what: &str, more: &[&str]| {
        json(&[&["cache", "find", text(&cache), "--near", what, "--limit", "4"], more].concat())
    };
    let by_row = near("5", &["--distance", "0"]);
    assert_eq!((&by_row["found"], &by_row["distance"], &by_row["near"]), (&2.into(), &0.into(), &"5".into()));
    let indices: Vec<_> = by_row["rows"].as_array().unwrap().iter().map(|row| &row["index"]).collect();
    assert_eq!(indices, [5, 6]);
    assert!(by_row["rows"][1]["key"].as_str().unwrap().ends_with("zz-copy.jpg"));

    // The name of the file says nothing.
    let renamed = temp.path().join("photograph");
    std::fs::copy(&photo, &renamed).unwrap();
    assert_eq!(near(text(&renamed), &["--distance", "0", "--tokenizer", "tiny"])["found"], 2);
    let by_image = near(text(&photo), &["--distance", "100000", "--tokenizer", "tiny"]);
    assert_eq!(by_image["found"], 10, "every row differs in fewer bits");
    let rows = by_image["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["distance"].as_u64().unwrap()).take(2).collect::<Vec<_>>(), [0, 0]);
    assert_eq!((rows.len(), &rows[0]["index"]), (4, &5.into()));
    assert!(rows.is_sorted_by_key(|row| row["distance"].as_u64()), "{rows:?}");

    // What cannot be looked for.
    assert!(fails(&["cache", "find", text(&cache), "--near", "10"], 2).contains("10 rows"));
    assert!(fails(&["cache", "find", text(&cache), "--near", text(&photo)], 2).contains("--tokenizer"));
    assert!(fails(&["cache", "find", text(&cache), "--near", "1", "--class", "0"], 2).contains("--class"));
    let missing = temp.path().join("missing.jpg");
    let no_image = ["cache", "find", text(&cache), "--near", text(&missing), "--tokenizer", "tiny"];
    assert!(fails(&no_image, 1).contains("missing.jpg"));
    let no_picture = cache.join("manifest.json");
    let no_image = ["cache", "find", text(&cache), "--near", text(&no_picture), "--tokenizer", "tiny"];
    let message = fails(&no_image, 1);
    assert!(message.contains(&format!("cannot encode {}: decode", no_picture.display())), "{message}");
    assert!(!message.replace(text(temp.path()), "").contains("tmp"), "only what was typed is named: {message}");
    let folder = ["cache", "find", text(&cache), "--near", text(temp.path()), "--tokenizer", "tiny"];
    assert!(fails(&folder, 2).contains("a folder"));
}

#[test]
fn images_of_one_cache_are_found_in_another() {
    let temp = tempfile::tempdir().unwrap();
    let [train, val] = ["train", "val"].map(|name| temp.path().join(name));
    tokenize(&photos(&temp.path().join("a"), 2, 3), &train, &[]);
    tokenize(&photos(&temp.path().join("b"), 3, 2), &val, &[]);
    let found = json(&["cache", "leak", text(&train), text(&val), "--distance", "0"]);
    // Two images of each of two classes are in both.
    assert_eq!((&found["pairs"], &found["rows"], &found["rows_compared"]), (&4.into(), &4.into(), &6.into()));
    for pair in found["listed"].as_array().unwrap() {
        assert_eq!(pair["key"], pair["train_key"]);
    }
    let itself = json(&["cache", "leak", text(&train), text(&train), "--distance", "0"]);
    assert_eq!(itself["pairs"], 0);
    let stats = json(&["cache", "stats", text(&train)]);
    assert_eq!(stats["near_duplicates"]["guaranteed_distance"], 15);
}
