//! The cache commands on real caches: checks that fail for the right reason, repairs, and caches from caches.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, sorted, text, tokengrid};
use std::path::{Path, PathBuf};
use tokengrid_cache::{CacheWriter, JobSpec, OpenMode, Row, RowMeta, TokenCache};
use tokengrid_model::{Params, Variant, tiny};
use tokengrid_train::run::save_safetensors;

#[track_caller]
fn tokenize(source: &Path, out: &Path, more: &[&str]) -> serde_json::Value {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "64", "--out", text(out)];
    json(&[&fixed[..], more].concat())
}

/// Runs `cache check`; exit status, the JSON object.
fn check(cache: &Path, source: &Path, tokenizer: &str) -> (i32, serde_json::Value) {
    let fixed = ["cache", "check", text(cache), "--source", text(source), "--tokenizer", tokenizer, "--json"];
    let output = tokengrid().args(fixed).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// A copy of the cache `from` whose job and rows `spoil` may change. Signed and whole: `verify` finds nothing.
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

    // What a cache gets whose images were mirrored by mistake: the tokens of the flipped views, called unflipped.
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

    // A resampler that is no longer there: whether its pixels are right cannot be told.
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

    // Somebody's own folder of such a name is no business of ours, nor is a hidden file in it.
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
    // Views of another kind do not go on from these, and nothing is encoded before that is known.
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

#[test]
fn stats_and_a_dry_run_tell_what_is_there_and_what_would_be() {
    let temp = tempfile::tempdir().unwrap();
    let (source, cache, picture) = (photos(temp.path(), 3, 3), temp.path().join("cache"), temp.path().join("s.png"));
    let class = sorted(&source)[2].clone();
    std::fs::copy(&sorted(&class)[0], class.join("twice.JPEG")).unwrap();
    let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "64", "--out", text(&cache)];
    let plan = json(&[&fixed[..], &["--dry-run"]].concat());
    assert!(!cache.exists(), "nothing is written");
    assert_eq!((&plan["rows"], &plan["images"]), (&10.into(), &10.into()));
    assert!(plan["hours"].as_f64().unwrap() > 0.0 && plan["memory_bytes"].as_u64() > plan["decoding_bytes"].as_u64());
    assert_eq!((&plan["images_done"], &plan["processes_per_machine"]), (&0.into(), &1.into()));
    let shared = json(&[&fixed[..], &["--dry-run", "--rank", "0", "--world-size", "4"]].concat());
    assert_eq!(shared["processes_per_machine"], 4, "nothing says that they run elsewhere");
    tokenize(&source, &cache, &[]);
    let plan_again = json(&[&fixed[..], &["--dry-run"]].concat());
    assert_eq!((&plan_again["images_done"], &plan_again["hours"]), (&10.into(), &0.0.into()));
    let more = json(&[&fixed[..], &["--dry-run", "--add", "--views", "center+flip"]].concat());
    assert_eq!((&more["rows"], &more["images_done"]), (&10.into(), &0.into()), "the views that it lacks");
    let hidden = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let files = sorted(&cache).iter().filter(|path| path.is_file() && !hidden(path)).count();
    assert_eq!(plan["files"].as_u64().unwrap() as usize, files);
    let stats = json(&["cache", "stats", text(&cache), "--plot", text(&picture)]);
    assert_eq!((&stats["rows"], &stats["codebook_size"]), (&10.into(), &262_144.into()));
    assert_eq!(stats["bit_balance"].as_array().unwrap().len(), 18);
    assert_eq!(stats["duplicates"]["rows"], 1, "{}", stats["duplicates"]);
    let png = std::fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 5000);
}

#[test]
fn the_loader_benchmark_measures_a_cache_and_random_grids() {
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path().join("cache");
    tokenize(&photos(temp.path(), 1, 2), &cache, &[]);
    let small = ["bench", "loader", "--samples", "1000", "--rounds", "2", "--rows", "500"];
    for more in [vec![], vec![text(&cache)], vec![text(&cache), "--preload"], vec![text(&cache), "--no-mmap"]] {
        let found = json(&[&small[..], &more].concat());
        assert!(found["grids_per_second"].as_f64().unwrap() > 0.0);
    }
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

/// Starts the program with its errors on a pipe.
fn start(arguments: &[&str]) -> std::process::Child {
    std::process::Command::new(PathBuf::from(env!("CARGO_BIN_EXE_tokengrid")))
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for it; its exit status, its errors, and the time that took.
fn end(child: std::process::Child) -> (Option<i32>, String, std::time::Duration) {
    let started = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), started.elapsed())
}

#[test]
#[cfg(unix)]
fn a_shard_that_is_cut_while_it_is_read_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    tokengrid_cache::write_synthetic_cache(&dir, 40_000, 1).unwrap();
    let child = start(&["bench", "loader", text(&dir), "--samples", "2000000000"]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let shard = dir.join("shard-00000-00000.parquet");
    std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(100_000).unwrap();
    let (status, stderr, _) = end(child);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("shard-00000-00000.parquet: byte ") && stderr.contains("truncated"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
#[cfg(unix)]
fn signals_end_cache_commands_within_two_seconds() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, fifo) = (temp.path().join("cache"), temp.path().join("fifo.npy"));
    tokengrid_cache::write_synthetic_cache(&dir, 1000, 1).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let out = temp.path().join("out");
    let waits = ["cache", "import", "--tokens", text(&fifo), "--grid", "16x16", "--out", text(&out)];
    for (arguments, signal, expected) in [
        (&["bench", "loader", text(&dir), "--samples", "2000000000"][..], "-TERM", 143),
        (&["bench", "loader", text(&dir), "--samples", "2000000000"][..], "-INT", 130),
        (&waits[..], "-INT", 130),
    ] {
        let child = start(arguments);
        std::thread::sleep(std::time::Duration::from_secs(1));
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let (status, stderr, took) = end(child);
        assert_eq!(status, Some(expected), "{arguments:?}: {stderr}");
        // Two seconds, and some more for a machine that has other things to do.
        assert!(took.as_secs_f64() < 4.0, "{arguments:?} took {took:?}");
    }
}

/// More shards than files may be open.
#[test]
#[cfg(unix)]
fn a_cache_of_many_shards_needs_few_descriptors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let mut job = JobSpec::new(tokengrid_cache::GridSpec { height: 2, width: 2, bits: 4 }, 100, 1);
    (job.rows_per_group, job.groups_per_shard) = (1, 1);
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for image in 0..100 {
        let key = format!("{image}.png");
        let tokens = [image as u32 % 16, 1, 2, 3];
        let row = Row { tokens: &tokens, label: image % 7, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image as usize, &[row]).unwrap();
    }
    writer.finish().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tokengrid"));
    let dir = text(&dir);
    for command in
        [format!("stats {dir}"), format!("diff {dir} {dir}"), format!("verify {dir}"), format!("head {dir} -n 100")]
    {
        let limited = format!("ulimit -n 64; exec {} cache {command} --threads 2 --json", program.display());
        let output = std::process::Command::new("sh").args(["-c", &limited]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        match command.split(' ').next() {
            Some("verify") => assert_eq!(object["ok"], true),
            Some("head") => assert_eq!(object["rows"].as_array().unwrap().len(), 100),
            Some("diff") => assert_eq!(object["same"], true),
            _ => assert_eq!(object["rows"], 100),
        }
    }
}

#[test]
fn an_unfinished_job_says_what_finishes_it() {
    let temp = tempfile::tempdir().unwrap();
    let (source, out) = (photos(temp.path(), 2, 2), temp.path().join("cache"));
    tokenize(&source, &out, &["--rank", "1", "--world-size", "3"]);
    let message = fails(&["cache", "info", text(&out)], 1);
    assert!(message.contains("1 of 3 ranks are done") && message.contains("ranks 0, 2 must still be run"), "{message}");
    assert!(message.contains("--world-size 3"), "{message}");
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
