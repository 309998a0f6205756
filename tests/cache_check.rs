//! `cache check` and `cache repair` on real caches: checks that fail for the right reason, and repairs to the same bytes.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

#[path = "common/caches.rs"]
mod caches;
mod common;

use caches::{check, tokenize};
use common::{fails, json, photos, sorted, text, tokengrid};
use std::path::{Path, PathBuf};
use tokengrid_cache::{CacheWriter, JobSpec, OpenMode, Row, RowMeta, TokenCache};
use tokengrid_model::{Params, Variant, tiny};
use tokengrid_train::run::save_safetensors;

/// A copy of the cache `from` whose job and rows `spoil` may change. Checksums are valid: `verify` finds nothing.
fn spoiled(from: &Path, out: &Path, job: impl Fn(&mut JobSpec), spoil: impl Fn(usize, &mut RowMeta, &mut Vec<u32>)) {
    let cache = TokenCache::open(from).unwrap();
    let mut spec = JobSpec::of(cache.manifest()).unwrap();
    job(&mut spec);
    let mut writer = CacheWriter::open(out, spec, OpenMode::Resume).unwrap();
    for image in 0..cache.num_images() {
        let mut rows: Vec<(RowMeta, Vec<u32>)> = vec![];
        for row in cache.image_rows(image) {
            let mut tokens = vec![0; cache.grid().num_tokens()];
            cache.tokens_into(row, &mut tokens);
            let mut meta = cache.meta(row).unwrap();
            spoil(row, &mut meta, &mut tokens);
            rows.push((meta, tokens));
        }
        let rows: Vec<Row> = rows
            .iter()
            .map(|(meta, tokens)| Row {
                tokens,
                label: meta.label,
                key: &meta.key,
                view: meta.view,
                crop_x: meta.crop_x,
                crop_y: meta.crop_y,
                flip: meta.flip,
            })
            .collect();
        writer.push_image(image, &rows).unwrap();
    }
    assert!(writer.finish().unwrap().published);
    json(&["cache", "verify", text(out)]);
}

/// `tiny`, with every weight of its encoder slightly changed.
fn other_weights(folder: &Path) -> PathBuf {
    let params = tiny::open_tokenizer(Path::new("tiny")).unwrap().tokenizer_params(Variant::Raw).unwrap();
    let changed = params.iter().map(|(name, tensor)| {
        // By up to an eighth, each by another share: the norms would undo a common factor.
        let shares =
            tch::Tensor::arange(tensor.numel() as i64, (tch::Kind::Float, tensor.device())).cos() * 0.125 + 1.0;
        let change = if name.starts_with("encoder.") { shares.view_as(tensor) } else { tensor.ones_like() };
        (name.to_owned(), tensor * change)
    });
    let changed: Params = changed.collect();
    let path = folder.join("other.safetensors");
    save_safetensors(&path, changed.iter(), Default::default()).unwrap();
    path
}

#[test]
fn check_passes_a_good_cache_and_says_what_is_wrong_with_others() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (source, good, bad) = (photos(dir, 3, 4), dir.join("good"), |name: &str| dir.join(name));
    tokenize(&source, &good, &[]);
    let (status, report) = check(&good, &source, "tiny");
    assert_eq!((status, &report["ok"], &report["images"]), (0, &true.into(), &12.into()), "{report}");

    let kinds = |cache: &Path, tokenizer: &str| {
        let (status, report) = check(cache, &source, tokenizer);
        assert_eq!((status, &report["ok"]), (1, &false.into()), "{report}");
        report["kinds"].to_string()
    };
    spoiled(&good, &bad("bits"), |_| {}, |_, _, tokens| tokens.iter_mut().for_each(|t| *t = t.reverse_bits() >> 14));
    assert!(kinds(&bad("bits"), "tiny").contains("bit_reversed"));

    spoiled(&good, &bad("labels"), |_| {}, |_, meta, _| meta.label = (meta.label + 1) % 3);
    assert!(kinds(&bad("labels"), "tiny").contains("label"));

    // Images mirrored by mistake: the tokens of the flipped views, recorded as unflipped.
    let flipped = bad("flipped");
    tokenize(&source, &flipped, &["--views", "center+flip"]);
    let mirror = TokenCache::open(&flipped).unwrap();
    spoiled(&good, &bad("mirrored"), |_| {}, |row, _, tokens| mirror.tokens_into(2 * row + 1, tokens));
    assert!(kinds(&bad("mirrored"), "tiny").contains("mirrored"));

    // Crops of another seed under this one's name.
    let crops = bad("crops-of-seed-1");
    tokenize(&source, &crops, &["--views", "random-crop:1", "--seed", "1"]);
    assert_eq!(check(&crops, &source, "tiny").0, 0);
    spoiled(&crops, &bad("crops"), |job| job.recipe["seed"] = 2.into(), |_, _, _| {});
    assert!(kinds(&bad("crops"), "tiny").contains("crop"));

    let other = other_weights(dir);
    let found = kinds(&good, text(&other));
    assert!(found.contains("tokens"), "{found}");
    let (_, report) = check(&good, &source, text(&other));
    assert!(report["difference"].as_str().unwrap().contains("tokenizer"), "the fingerprint is named, too: {report}");

    // A resampler that was removed: its pixels cannot be checked.
    spoiled(&good, &bad("resize"), |job| job.recipe["resize"] = "fast-bilinear".into(), |_, _, _| {});
    let removed = bad("resize");
    let fixed = ["cache", "check", text(&removed), "--source", text(&source), "--tokenizer", "tiny"];
    let message = fails(&fixed, 1);
    assert!(message.contains("fast-bilinear") && message.contains("was removed"), "{message}");
}

#[test]
fn repair_restores_the_same_bytes_or_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (source, cache) = (photos(temp.path(), 3, 4), temp.path().join("cache"));
    std::fs::write(sorted(&source)[1].join("broken.jpg"), "<html>").unwrap();
    tokenize(&source, &cache, &["--rows-per-group", "4"]);
    let all = || -> Vec<(PathBuf, Vec<u8>)> {
        let files = sorted(&cache).into_iter().filter(|path| path.is_file());
        files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
    };
    let before = all();
    let shard = sorted(&cache).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
    let repair = ["cache", "repair", text(&cache), "--source", text(&source), "--tokenizer", "tiny"];
    assert_eq!(json(&repair)["found"], serde_json::json!([]));

    // A flipped bit in the tokens of one row group: only its images are encoded again.
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[100] ^= 4;
    std::fs::write(&shard, &bytes).unwrap();
    let report = json(&repair);
    assert_eq!(report["row_groups_encoded"], 1, "{report}");
    assert!(report["images_encoded"].as_u64().unwrap() <= 5, "{report}");
    assert!(all() == before, "the same bytes");

    // The same with a shard, the quarantine list, and the manifest gone or damaged.
    std::fs::remove_file(&shard).unwrap();
    json(&repair);
    assert!(all() == before, "the shard is back");
    std::fs::write(cache.join("quarantine.jsonl"), "").unwrap();
    json(&repair);
    assert!(all() == before, "the quarantine list is back");
    let manifest = std::fs::read_to_string(cache.join("manifest.json")).unwrap();
    std::fs::write(cache.join("manifest.json"), manifest.replace("\"bits\": 18", "\"bits\": 17")).unwrap();
    assert_eq!(json(&repair)["manifest_rebuilt"], true);
    json(&["cache", "verify", text(&cache)]);
    assert_eq!(std::fs::read_to_string(cache.join("manifest.json")).unwrap(), manifest);
    std::fs::remove_file(cache.join("manifest.json")).unwrap();
    assert_eq!(json(&repair)["manifest_rebuilt"], true);
    assert_eq!(std::fs::read_to_string(cache.join("manifest.json")).unwrap(), manifest);

    // Another source cannot give the same rows: nothing is changed.
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[100] ^= 4;
    std::fs::write(&shard, &bytes).unwrap();
    let other = temp.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = photos(&other, 3, 4);
    let class = sorted(&other)[0].clone();
    std::fs::copy(&sorted(&class)[1], class.join("another.JPEG")).unwrap();
    let message = fails(&["cache", "repair", text(&cache), "--source", text(&other), "--tokenizer", "tiny"], 1);
    assert!(!message.is_empty());
    assert!(std::fs::read(&shard).unwrap() == bytes);
}

/// Train and val, whose class folders differ, merged into one cache: checked and repaired from a source for each split.
#[test]
fn a_cache_with_splits_is_checked_and_repaired_from_a_source_for_each() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let [train, val] = ["train", "val"].map(|name| {
        let folder = dir.join(name);
        std::fs::create_dir(&folder).unwrap();
        photos(&folder, 3, 3)
    });
    // Val lacks the first class, so that labels are renumbered.
    std::fs::remove_dir_all(&sorted(&val)[0]).unwrap();
    std::fs::write(sorted(&train)[1].join("broken.jpg"), "<html>").unwrap();
    let [a, b, cache] = ["a", "b", "both"].map(|name| dir.join(name));
    tokenize(&train, &a, &["--rows-per-group", "4"]);
    tokenize(&val, &b, &[]);
    let (named_a, named_b) = (format!("train={}", text(&a)), format!("val={}", text(&b)));
    json(&["cache", "merge", text(&cache), &named_a, &named_b]);
    let splits = &json(&["cache", "info", text(&cache)])["splits"];
    assert_eq!(
        (&splits[0]["name"], &splits[0]["rows"], &splits[1]["first_row"]),
        (&"train".into(), &9.into(), &9.into())
    );
    let shown = tokengrid().args(["cache", "info", text(&cache)]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("val: 6 images, 6 rows, 9 to 14"));

    let (from_train, from_val) = (format!("train={}", text(&train)), format!("val={}", text(&val)));
    let sources = ["--source", &from_val, "--source", &from_train, "--tokenizer", "tiny"];
    let report = json(&[&["cache", "check", text(&cache)][..], &sources].concat());
    assert_eq!((&report["ok"], &report["images"]), (&true.into(), &15.into()), "{report}");
    let swapped = [format!("train={}", text(&val)), format!("val={}", text(&train))];
    let wrong =
        ["cache", "check", text(&cache), "--source", &swapped[0], "--source", &swapped[1], "--tokenizer", "tiny"];
    assert!(fails(&wrong, 2).contains("images"));
    let one = fails(&["cache", "check", text(&cache), "--source", text(&train), "--tokenizer", "tiny"], 2);
    assert!(one.contains("--source train=SOURCE --source val=SOURCE"), "{one}");
    let half = fails(&["cache", "repair", text(&cache), "--source", &from_train, "--tokenizer", "tiny"], 2);
    assert!(half.contains("--source val=SOURCE"), "{half}");

    let shard = sorted(&cache).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
    let before = std::fs::read(&shard).unwrap();
    std::fs::remove_file(&shard).unwrap();
    let report = json(&[&["cache", "repair", text(&cache)][..], &sources].concat());
    assert_eq!(report["images_encoded"], 15, "{report}");
    assert!(std::fs::read(&shard).unwrap() == before, "the same bytes");
}

#[test]
fn images_in_quarantine_are_named_with_the_reason_and_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let (source, cache) = (photos(temp.path(), 2, 3), temp.path().join("cache"));
    let class = sorted(&source)[0].clone();
    std::fs::write(class.join("broken.jpg"), "<html>").unwrap();
    tokenize(&source, &cache, &[]);

    let find = ["cache", "find", text(&cache), "--key", "broken"];
    let found = json(&find);
    let record = &found["quarantined"][0];
    assert_eq!((&found["found"], found["quarantined"].as_array().unwrap().len()), (&0.into(), 1));
    assert!(record["key"].as_str().unwrap().ends_with("broken.jpg") && record["stage"] == "decode", "{record}");
    let reason = record["reason"].as_str().unwrap();
    let printed = String::from_utf8(tokengrid().args(find).output().unwrap().stdout).unwrap();
    for words in ["0 rows", "1 input of such a key in quarantine", reason, "mend or replace it"] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    assert_eq!(json(&["cache", "find", text(&cache), "--key", "JPEG"])["quarantined"], serde_json::json!([]));

    // Nothing else is given than an image that could not be decoded.
    let only = temp.path().join("only");
    let folder = only.join(class.file_name().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::rename(class.join("broken.jpg"), folder.join("broken.jpg")).unwrap();
    let message = fails(&["cache", "check", text(&cache), "--source", text(&only), "--tokenizer", "tiny"], 2);
    for words in ["broken.jpg", "in quarantine", reason, "mend or replace it"] {
        assert!(message.contains(words), "{words} in {message}");
    }

    // It was taken away: all others are checked, and repaired, by their keys.
    let (status, report) = check(&cache, &source, "tiny");
    assert_eq!((status, &report["images"]), (0, &6.into()), "{report}");
    let shard = cache.join("shard-00000-00000.parquet");
    let bytes = std::fs::read(&shard).unwrap();
    let mut damaged = bytes.clone();
    damaged[100] ^= 4;
    std::fs::write(&shard, damaged).unwrap();
    json(&["cache", "repair", text(&cache), "--source", text(&source), "--tokenizer", "tiny"]);
    assert!(std::fs::read(&shard).unwrap() == bytes, "the same bytes");

    // An image that can no longer be decoded is a difference with a reason.
    std::fs::write(sorted(&class)[0].clone(), "<html>").unwrap();
    let (status, report) = check(&cache, &source, "tiny");
    assert_eq!((status, &report["undecodable"][0]["stage"]), (1, &"decode".into()), "{report}");
}
