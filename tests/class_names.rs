//! Readable names of classes, and lists of keys, from file to file.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

#[path = "common/caches.rs"]
mod caches;
mod common;

use caches::tokenize;
use common::{fails, json, photos, sorted, text};

#[test]
fn names_are_kept_beside_the_cache_and_go_with_its_parts() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let source = photos(dir, 3, 2);
    let [cache, part, both, file] = ["cache", "part", "both", "names.txt"].map(|name| dir.join(name));
    let hash = tokenize(&source, &cache, &[])["content_hash"].clone();
    let classes: Vec<String> =
        sorted(&source).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(json(&["cache", "names", text(&cache)])["named"], 0);
    std::fs::write(&file, "nothing here\n").unwrap();
    let message = fails(&["cache", "names", text(&cache), text(&file)], 1);
    assert!(message.contains("names.txt") && message.contains("1 lines") && message.contains(&classes[0]), "{message}");
    std::fs::write(&file, format!("{}\tcat, house cat\n{} dog\n", classes[0], classes[2])).unwrap();
    let found = json(&["cache", "names", text(&cache), text(&file)]);
    assert_eq!((&found["named"], &found["names"][0]["name"]), (&2.into(), &"cat, house cat".into()));
    assert_eq!(json(&["cache", "info", text(&cache)])["content_hash"], hash, "no part of the content");
    json(&["cache", "verify", text(&cache)]);
    assert_eq!(json(&["cache", "find", text(&cache), "--class", "House Cat"])["found"], 2);
    json(&["cache", "subset", text(&cache), "--classes", "dog", "--out", text(&part)]);
    assert_eq!(json(&["cache", "names", text(&part)])["names"][2]["name"], "dog");
    let inputs = [format!("a={}", text(&cache)), format!("b={}", text(&part))];
    json(&["cache", "merge", text(&both), &inputs[0], &inputs[1]]);
    assert_eq!(json(&["cache", "names", text(&both)])["named"], 2);
    assert_eq!(json(&["cache", "names", text(&cache), "--remove"])["named"], 0);
    assert!(!cache.join("class-names.json").exists());
}

#[test]
fn a_list_of_keys_takes_images_or_leaves_them_out() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let source = photos(dir, 2, 3);
    let [cache, rest, part, none, list] = ["cache", "rest", "part", "none", "keys.txt"].map(|name| dir.join(name));
    tokenize(&source, &cache, &[]);
    let key = |row: &str| json(&["cache", "show", text(&cache), "--index", row])["key"].as_str().unwrap().to_owned();
    let keys = [key("4"), key("1")];
    std::fs::write(&list, format!("{}\r\n\n{}\n", keys[0], keys[1])).unwrap();
    assert_eq!(json(&["cache", "subset", text(&cache), "--keys", text(&list), "--out", text(&part)])["rows"], 2);
    let rows = json(&["cache", "head", text(&part)])["rows"].clone();
    assert_eq!((&rows[0]["key"], &rows[1]["key"]), (&keys[1].clone().into(), &keys[0].clone().into()));
    let left = tokenize(&source, &rest, &["--exclude", &format!("@{}", text(&list))]);
    assert_eq!(left["rows"], 4, "{left}");
    std::fs::write(&list, "not/there.jpg\n").unwrap();
    let subset = ["cache", "subset", text(&cache), "--keys", text(&list), "--out", text(&none)];
    assert!(fails(&subset, 1).contains("not/there.jpg"));
    std::fs::write(&list, "\n").unwrap();
    assert!(fails(&subset, 2).contains("no key"));
    let message = fails(&["ingest", text(&source), "--exclude", "@nowhere.txt"], 1);
    assert!(message.contains("nowhere.txt"), "{message}");
}
