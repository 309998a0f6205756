//! Caches from caches: views and splits that are added, merged, cut out, exported and imported.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

#[path = "common/caches.rs"]
mod caches;
mod common;

use caches::{check, tokenize};
use common::{fails, json, photos, sorted, text};
use std::path::Path;

#[test]
fn views_that_are_added_later_make_the_cache_of_all_of_them() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let source = photos(dir, 2, 3);
    let [first, rest, all, merged, half] = ["first", "rest", "all", "merged", "half"].map(|name| dir.join(name));
    tokenize(&source, &first, &["--views", "random-crop:2"]);
    tokenize(&source, &rest, &["--views", "random-crop:5", "--first-view", "2", "--batch-size", "4"]);
    let whole = tokenize(&source, &all, &["--views", "random-crop:5"]);
    let made = json(&["cache", "merge", text(&merged), text(&first), text(&rest)]);
    assert_eq!((&made["rows"], &made["content_hash"]), (&30.into(), &whole["content_hash"]));
    json(&["cache", "verify", text(&merged)]);
    assert_eq!(check(&merged, &source, "tiny").0, 0);
    let message =
        fails(&["tokenize", text(&source), "--tokenizer", "tiny", "--first-view", "1", "--out", text(&half)], 2);
    assert!(message.contains("--first-view 1"), "{message}");
    json(&["cache", "subset", text(&merged), "--views", "0..2", "--out", text(&half)]);
    let hash = |cache: &Path| json(&["cache", "info", text(cache)])["content_hash"].clone();
    assert_eq!(hash(&half), hash(&first));
}

#[test]
fn what_a_cache_lacks_is_added_in_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (source, cache, whole) = (photos(dir, 2, 3), dir.join("cache"), dir.join("whole"));
    let hash = |cache: &Path| json(&["cache", "info", text(cache)])["content_hash"].clone();
    tokenize(&source, &whole, &["--views", "random-crop:5"]);
    tokenize(&source, &cache, &["--views", "random-crop:2"]);
    std::fs::write(cache.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(cache.join(".hidden")).unwrap();
    let add = ["--views", "random-crop:5", "--add"];
    let made = tokenize(&source, &cache, &add);
    assert_eq!((&made["rows"], &made["rows_added"]), (&30.into(), &18.into()));
    assert_eq!(made["content_hash"], hash(&whole));
    json(&["cache", "verify", text(&cache)]);
    assert_eq!(tokenize(&source, &cache, &add)["rows_added"], 0);
    assert_eq!(std::fs::read_to_string(cache.join("notes.txt")).unwrap(), "mine");

    assert!(cache.join(".hidden").is_dir());
    let beside = |ending: &str| dir.join(format!("cache.{ending}"));
    for ending in ["adding", "merged", "before", "adding.json"] {
        assert!(!beside(ending).exists(), "{ending}");
    }

    // A foreign folder of such a name is not touched, nor is a hidden file in it.
    tokenize(&source, &beside("before"), &["--views", "random-crop:1"]);
    std::fs::write(beside("before").join(".mine"), "mine").unwrap();
    let backup = sorted(&beside("before"));
    assert_eq!(tokenize(&source, &cache, &add)["rows_added"], 0);
    assert_eq!(sorted(&beside("before")), backup);
    std::fs::rename(beside("before"), dir.join("backup")).unwrap();

    // Killed at each point of the exchange: between the two renames of a file system that cannot exchange folders, and
    // while the old cache or the added part was being removed.
    let checksum = |folder: &Path| {
        let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["checksum"].clone()
    };
    let (old, added) = (dir.join("old"), dir.join("added"));
    tokenize(&source, &old, &["--views", "random-crop:2"]);
    tokenize(&source, &added, &["--views", "random-crop:5", "--first-view", "2"]);
    let copy = |from: &Path, to: &Path, but: &str| {
        std::fs::create_dir(to).unwrap();
        for file in sorted(from).into_iter().filter(|file| file.is_file() && !text(file).ends_with(but)) {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    };
    for (by_renames, place, but) in [(true, "before", "?"), (false, "merged", ".parquet"), (false, "merged", "?")] {
        let record = serde_json::json!({
            "old": checksum(&old), "new": checksum(&cache), "added": checksum(&added), "by_renames": by_renames,
        });
        std::fs::write(beside("adding.json"), record.to_string()).unwrap();
        copy(&old, &beside(place), but);
        copy(&added, &beside("adding"), but);
        if by_renames {
            std::fs::rename(&cache, beside("merged")).unwrap();
        }
        assert_eq!(tokenize(&source, &cache, &add)["content_hash"], hash(&whole));
        for ending in ["adding", "merged", "before", "adding.json"] {
            assert!(!beside(ending).exists(), "{ending}, {place}");
        }
        json(&["cache", "verify", text(&cache)]);
    }
    for ending in ["adding", "merged", "before"] {
        assert!(!beside(ending).exists(), "{ending}");
    }
    let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "64", "--out", text(&cache), "--add"];
    let message = fails(&[&fixed[..], &["--views", "random-crop:3"]].concat(), 2);
    assert!(message.contains("has 5 views"), "{message}");
    // Views of another kind cannot be added to these, which is found before anything is encoded.
    let message = fails(&[&fixed[..], &["--views", "center+flip"]].concat(), 2);
    assert!(message.contains("not the first of"), "{message}");
    assert!(!beside("adding").exists());
    let others = dir.join("others");
    tokenize(&source, &others, &["--views", "center+flip", "--first-view", "1"]);
    let (centres, both) = (dir.join("centres"), dir.join("both"));
    tokenize(&source, &centres, &["--views", "random-crop:1"]);
    let merge = ["cache", "merge", text(&both), text(&centres), text(&others)];
    let message = fails(&merge, 1);
    assert!(message.contains("recipe.views"), "{message}");
    let message = fails(&[&fixed[..], &["--views", "random-crop:9", "--seed", "8"]].concat(), 1);
    assert!(message.contains("seed"), "{message}");
    assert_eq!(hash(&cache), hash(&whole), "nothing is changed by what does not fit");

    // Another split.
    let [named, val] = ["named", "val"].map(|name| dir.join(name));
    let more = photos(&val, 4, 2);
    for class in sorted(&source) {
        std::fs::remove_dir_all(more.join(class.file_name().unwrap())).unwrap();
    }
    let message = fails(&[&fixed[..], &["--split", "val"]].concat(), 1);
    assert!(message.contains("cache merge"), "{message}");
    tokenize(&source, &named, &["--split", "train"]);
    let made = tokenize(&more, &named, &["--split", "val", "--add"]);
    assert_eq!((&made["rows"], &made["rows_added"]), (&10.into(), &4.into()));
    assert_eq!(tokenize(&more, &named, &["--split", "val", "--add"])["rows_added"], 0);
    let part = dir.join("part");
    assert_eq!(json(&["cache", "subset", text(&named), "--split", "val", "--out", text(&part)])["rows"], 4);
}

#[test]
fn splits_subsets_and_arrays_there_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let source = photos(dir, 3, 3);
    let [cache, one, two, both, arrays, lists, again, listed] =
        ["cache", "one", "two", "both", "arrays", "lists", "again", "listed"].map(|name| dir.join(name));
    tokenize(&source, &cache, &[]);
    let classes: Vec<String> =
        sorted(&source).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect();
    json(&["cache", "subset", text(&cache), "--classes", &classes[..2].join(","), "--out", text(&one)]);
    json(&["cache", "subset", text(&cache), "--classes", "2", "--out", text(&two)]);
    let message = fails(&["cache", "subset", text(&cache), "--classes", "n00000000", "--out", text(&both)], 1);
    assert!(message.contains("n00000000"), "{message}");
    // Classes 0 and 2: a part of the source, in which images have other numbers.
    let part = dir.join("part");
    json(&["cache", "subset", text(&cache), "--classes", "0,2", "--out", text(&part)]);
    let (status, report) = check(&part, &source, "tiny");
    assert_eq!((status, &report["ok"]), (0, &true.into()), "{report}");
    let shard = part.join("shard-00000-00000.parquet");
    let bytes = std::fs::read(&shard).unwrap();
    let mut damaged = bytes.clone();
    damaged[10] ^= 1;
    std::fs::write(&shard, damaged).unwrap();
    let repaired = json(&["cache", "repair", text(&part), "--source", text(&source), "--tokenizer", "tiny"]);
    assert_eq!(repaired["remaining"], serde_json::json!([]));
    assert_eq!(std::fs::read(&shard).unwrap(), bytes, "a part is repaired from the source of the whole");
    let itself = dir.join("x/../part");
    std::fs::create_dir(dir.join("x")).unwrap();
    let message = fails(&["cache", "subset", text(&part), "--classes", "0", "--out", text(&itself), "--overwrite"], 2);
    assert!(message.contains("is an input, too"), "{message}");
    let message = fails(&["cache", "merge", text(&part), text(&part), "--overwrite"], 2);
    assert!(message.contains("is an input, too"), "{message}");
    let [train, val] = [format!("train={}", text(&one)), format!("val={}", text(&two))];
    assert_eq!(json(&["cache", "merge", text(&both), &train, &val])["rows"], 9);
    let message = fails(&["cache", "merge", text(&dir.join("y")), text(&one), text(&one)], 1);
    assert!(message.contains(&classes[0]), "a key that is there twice is named: {message}");

    for command in [&["cache", "head", text(&both)][..], &["cache", "find", text(&both)]] {
        let rows = json(command)["rows"].clone();
        assert_eq!((&rows[0]["split"], &rows[8]["split"]), (&"train".into(), &"val".into()), "{rows}");
    }
    assert_eq!(json(&["cache", "show", text(&both), "--index", "8"])["split"], "val");
    json(&["cache", "export", text(&both), "--format", "parquet-list", "--out", text(&dir.join("split"))]);
    let table = std::fs::read(dir.join("split/tokens.parquet")).unwrap();
    assert!(table.windows(5).any(|bytes| bytes == b"split"), "a column names the split");
    let message = fails(&["cache", "export", text(&cache), "--out", text(&cache)], 2);
    assert!(message.contains("is an input, too"), "{message}");
    json(&["cache", "export", text(&cache), "--out", text(&arrays)]);
    let fixed = ["cache", "import", "--grid", "8x8", "--bits", "18", "--out", text(&again)];
    let file = |name: &str| arrays.join(name).to_str().unwrap().to_string();
    let files = ["--tokens", &file("tokens.npy"), "--labels", &file("labels.npy"), "--keys", &file("keys.txt")];
    assert_eq!(json(&[&fixed[..], &files[..]].concat())["rows"], 9);
    let row = |cache: &Path| json(&["cache", "show", text(cache), "--index", "4"]);
    for field in ["tokens", "label", "key"] {
        assert_eq!(row(&again)[field], row(&cache)[field]);
    }
    let wrong = dir.join("wrong");
    let tokens = file("tokens.npy");
    fails(&["cache", "import", "--tokens", &tokens, "--grid", "7x7", "--out", text(&wrong)], 1);
    assert!(!wrong.exists(), "nothing of a failed import stays");
    json(&["cache", "export", text(&cache), "--format", "parquet-list", "--out", text(&lists)]);
    let tokens = lists.join("tokens.parquet");
    json(&["cache", "import", "--tokens", text(&tokens), "--grid", "8x8", "--out", text(&listed)]);
    let hash = |cache: &Path| json(&["cache", "info", text(cache)])["content_hash"].clone();
    assert_eq!(hash(&listed), hash(&cache), "nothing is lost on the way");
}
