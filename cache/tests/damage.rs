//! Whatever is altered is found, named and refused.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use std::path::Path;
use tokengrid_cache::{CacheError, OpenMode, TokenCache, VerifyReport, verify, verify_with_threads};

fn check(dir: &Path) -> VerifyReport {
    verify_with_threads(dir, 1, &mut |_, _| {}).unwrap()
}

/// The row group of a byte of a shard, by the manifest; `None` in page index and footer.
fn group_of(cache: &TokenCache, file: &str, byte: u64) -> Option<usize> {
    let entry = cache.manifest().shards.iter().find(|shard| shard.file == file).unwrap();
    entry.row_groups.iter().position(|g| (g.range.offset..g.range.offset + g.range.bytes).contains(&byte))
}

/// 9,000 damages all over the cache: bits flipped, bytes replaced, files cut short. Each must be found and put down to
/// the right file and row group, and none may make a reader panic.
#[test]
fn every_damage_is_found_and_named() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let files: Vec<_> = names(&dir).into_iter().map(|name| (fs::read(dir.join(&name)).unwrap(), name)).collect();
    let total: usize = files.iter().map(|(bytes, _)| bytes.len()).sum();
    for trial in 0..9000u64 {
        let mut place = (scramble(trial) % total as u64) as usize;
        let (bytes, name) = files
            .iter()
            .find(|(bytes, _)| {
                let found = place < bytes.len();
                place -= if found { 0 } else { bytes.len() };
                found
            })
            .unwrap();
        let mut damaged = bytes.clone();
        let kind = trial % 8;
        match kind {
            0 => damaged.truncate(place),
            1 => damaged[place] = !damaged[place],
            2 => damaged[place] = damaged[place].wrapping_add(1 + (scramble(trial + 9) % 255) as u8),
            bit => damaged[place] ^= 1 << ((bit + trial / 8) % 8),
        }
        fs::write(dir.join(name), &damaged).unwrap();
        // Opening is tried where it must be refused, and else now and then.
        let opened = (trial % 8 < 2 || name == "manifest.json").then(|| TokenCache::open(&dir));
        let report = check_or_refused(&dir);
        let what = format!("trial {trial}: byte {place} of {name}");
        if let Some(report) = report {
            assert!(report.problems.iter().all(|problem| problem.shard == *name), "{what}: {report:?}");
            assert!(!report.is_ok(), "{what} was not found");
            if name.starts_with("shard") {
                let group = group_of(&cache, name, place as u64);
                assert!(report.problems.iter().any(|p| p.row_group == group), "{what} in {group:?}: {report:?}");
                assert!(kind == 0 || report.problems.len() == 1, "{what}: {report:?}");
            }
        } else {
            assert_eq!(name, "manifest.json", "{what}");
        }
        // A cache with a damaged manifest, footer or length is refused at once.
        let refused = name == "manifest.json"
            || name.starts_with("shard") && (kind == 0 || group_of(&cache, name, place as u64).is_none());
        assert!(!refused || opened.is_none_or(|opened| opened.is_err()), "{what} was accepted");
        fs::write(dir.join(name), bytes).unwrap();
    }
    assert!(check(&dir).is_ok());
}

/// 1,000 more, of files rather than bytes: shards that change places, shards of another job of the same size, of an
/// earlier state of the same job, and manifests that were edited and signed again.
#[test]
fn every_mix_up_of_files_is_found() {
    let (temp, dir) = small_cache();
    let other = temp.path().join("other");
    let mut job = small_job();
    job.tokenizer.fingerprint = "ffff0000".into();
    run(&other, &job, OpenMode::Resume).unwrap();
    let shards: Vec<_> = names(&dir).into_iter().filter(|name| name.ends_with(".parquet")).collect();
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    // Digits of the manifest after the format version; every one of them counts.
    let digits: Vec<usize> =
        manifest.char_indices().filter(|(i, c)| *i > 70 && c.is_ascii_digit()).map(|(i, _)| i).collect();
    for trial in 0..1000u64 {
        let pick = |n: u64, len: usize| (scramble(trial * 10 + n) % len as u64) as usize;
        let (a, b) = (pick(0, shards.len()), pick(1, shards.len() - 1));
        let (a, b) = (&shards[a], &shards[if b >= a { b + 1 } else { b }]);
        let (bytes_a, bytes_b) = (fs::read(dir.join(a)).unwrap(), fs::read(dir.join(b)).unwrap());
        match trial % 4 {
            0 => {
                fs::write(dir.join(a), &bytes_b).unwrap();
                fs::write(dir.join(b), &bytes_a).unwrap();
            }
            1 => _ = fs::copy(dir.join(b), dir.join(a)).unwrap(),
            2 => _ = fs::copy(other.join(a), dir.join(a)).unwrap(),
            _ => {
                let place = digits[pick(2, digits.len())];
                let digit = (manifest.as_bytes()[place] - b'0' + 1 + pick(3, 9) as u8) % 10;
                let edited = format!("{}{digit}{}", &manifest[..place], &manifest[place + 1..]);
                // The last digits are the signature itself: signing would undo the edit.
                let signed = if place < manifest.len() - 70 { sign(&edited) } else { edited };
                fs::write(dir.join("manifest.json"), signed).unwrap();
            }
        }
        assert!(!check(&dir).is_ok(), "trial {trial}: {a} and {b}");
        // Opening reads no checksum of rows or of the quarantine list, but every footer.
        assert!(trial % 4 == 3 || TokenCache::open(&dir).is_err(), "trial {trial}: {a} and {b}");
        fs::write(dir.join(a), bytes_a).unwrap();
        fs::write(dir.join(b), bytes_b).unwrap();
        fs::write(dir.join("manifest.json"), &manifest).unwrap();
    }
    assert!(check(&dir).is_ok());
}

/// Damage to the manifest's own version may read as a newer version, which is an error of `verify`.
fn check_or_refused(dir: &Path) -> Option<VerifyReport> {
    match verify_with_threads(dir, 1, &mut |_, _| {}) {
        Ok(report) => Some(report),
        Err(CacheError::NewerVersion { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn damaged_labels_and_keys_are_refused_when_they_are_read() {
    let (_temp, dir) = small_cache();
    let name = "shard-00000-00000.parquet";
    let bytes = fs::read(dir.join(name)).unwrap();
    let last = fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&last).unwrap();
    let group = &manifest["shards"][0]["row_groups"][0];
    let end = group["bytes"].as_u64().unwrap() as usize;
    let (mut refused, mut by_meta) = (0, 0);
    for byte in 4..end {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 0x20;
        fs::write(dir.join(name), &damaged).unwrap();
        match TokenCache::open(&dir) {
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("shard-00000-00000.parquet, row group 0"), "{error}");
            }
            Ok(cache) => by_meta += usize::from(cache.meta(0).is_err()),
        }
    }
    assert!(refused > 20, "label column and page header: {refused}");
    assert!(by_meta > 100, "key, view and crop columns: {by_meta}");
}

#[test]
fn missing_surplus_swapped_and_longer_files_are_found() {
    let (temp, dir) = small_cache();
    let path = |name: &str| dir.join(name);
    let (a, b) = (path("shard-00000-00001.parquet"), path("shard-00000-00002.parquet"));
    let problems = |dir: &Path| check(dir).problems.into_iter().map(|p| p.shard).collect::<Vec<_>>();

    fs::rename(&a, path("aside")).unwrap();
    assert_eq!(problems(&dir), ["shard-00000-00001.parquet"]);
    let error = TokenCache::open(&dir).unwrap_err();
    assert!(matches!(&error, CacheError::MissingShard { path } if *path == a), "{error}");

    fs::rename(&b, &a).unwrap();
    fs::rename(path("aside"), &b).unwrap();
    let found = problems(&dir);
    assert!(found.contains(&"shard-00000-00001.parquet".into()) && found.contains(&"shard-00000-00002.parquet".into()));
    assert!(TokenCache::open(&dir).is_err());
    fs::rename(&a, path("aside")).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(path("aside"), &b).unwrap();
    assert!(check(&dir).is_ok());

    fs::copy(&a, path("shard-00001-00000.parquet")).unwrap();
    assert_eq!(problems(&dir), ["shard-00001-00000.parquet"]);
    fs::remove_file(path("shard-00001-00000.parquet")).unwrap();

    let mut longer = fs::read(&a).unwrap();
    longer.push(0);
    fs::write(&a, longer).unwrap();
    assert_eq!(problems(&dir), ["shard-00000-00001.parquet"]);
    assert!(matches!(TokenCache::open(&dir), Err(CacheError::ShardSize { .. })));

    fs::remove_file(path("quarantine.jsonl")).unwrap();
    assert!(problems(&dir).contains(&"quarantine.jsonl".to_owned()));
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(verify(&empty, &mut |_, _| {}), Err(CacheError::NotACache { .. })));
}

#[test]
fn a_manifest_or_shard_of_another_job_is_found() {
    let (temp, dir) = small_cache();
    let other = temp.path().join("other");
    let mut job = small_job();
    job.tokenizer.fingerprint = "ffff0000".into(); // same length: the files have the same sizes
    run(&other, &job, OpenMode::Resume).unwrap();

    let mixed = temp.path().join("mixed");
    copy_dir(&dir, &mixed);
    fs::copy(other.join("manifest.json"), mixed.join("manifest.json")).unwrap();
    assert_eq!(check(&mixed).problems.iter().filter(|p| p.shard.starts_with("shard")).count(), 5);
    assert!(TokenCache::open(&mixed).is_err());

    copy_dir(&dir, &mixed);
    fs::copy(other.join("shard-00000-00003.parquet"), mixed.join("shard-00000-00003.parquet")).unwrap();
    assert!(check(&mixed).problems.iter().all(|p| p.shard == "shard-00000-00003.parquet"));
    assert!(!check(&mixed).is_ok());
    let error = TokenCache::open(&mixed).unwrap_err().to_string();
    assert!(error.contains("shard-00000-00003.parquet"), "{error}");
}

/// Whoever edits a manifest may also sign it; what it says must then still fit the shards.
#[test]
fn a_signed_lie_in_the_manifest_is_found() {
    let (temp, good) = small_cache();
    let cache = TokenCache::open(&good).unwrap();
    let first = &cache.manifest().shards[0];
    let lies = [
        ("\"rows\": 68", "\"rows\": 67"),
        ("\"images\": 34", "\"images\": 35"),
        ("\"views\": 2", "\"views\": 1"),
        ("\"views\": 2", "\"views\": 0"),
        ("\"bits\": 18", "\"bits\": 17"),
        ("\"bits\": 18", "\"bits\": 255"),
        ("\"grid\": \"5x3\"", "\"grid\": \"3x5\""),
        ("\"grid\": \"5x3\"", "\"grid\": \"5000x3000\""),
        ("\"format\": \"tokengrid-cache\"", "\"format\": \"tokengrid-cachf\""),
        ("\"format_version\": 1", "\"format_version\": 0"),
        ("\"format_version\": 1", "\"format_version\": -1"),
        ("\"file\": \"shard-00000-00000.parquet\"", "\"file\": \"../cache/shard-00000-00000.parquet\""),
        ("\"file\": \"shard-00000-00000.parquet\"", "\"file\": \"shard-00000-00001.parquet\""),
        ("\"offset\": 0", "\"offset\": 18446744073709551615"),
        ("\"images\": 37", "\"images\": 18446744073709551615"),
        (first.content_sum.as_str(), "0000000000000000000000000000000000000000000000000000000000000000"),
        (cache.manifest().job.as_str(), "0000000000000000000000000000000000000000000000000000000000000000"),
        (cache.content_hash(), "1111111111111111111111111111111111111111111111111111111111111111"),
        (first.footer.blake3.as_str(), "1111111111111111111111111111111111111111111111111111111111111111"),
    ];
    for (i, (from, to)) in lies.into_iter().enumerate() {
        let dir = temp.path().join(format!("lie-{i}"));
        copy_dir(&good, &dir);
        edit_manifest(&dir, from, to);
        assert!(TokenCache::open(&dir).is_err(), "{from} -> {to} was accepted");
        assert!(!check(&dir).is_ok(), "{from} -> {to} was not found");
    }
    // An edit that is not signed is found whatever it says, even a blank.
    let text = fs::read_to_string(good.join("manifest.json")).unwrap();
    for edited in
        [text.replacen("  ", "   ", 1), text.replacen("\"tiny\"", "\"tinz\"", 1), format!("{text} "), text + "\n"]
    {
        fs::write(good.join("manifest.json"), edited).unwrap();
        assert_eq!(check(&good).problems[0].shard, "manifest.json");
        assert!(TokenCache::open(&good).is_err());
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let (_temp, dir) = small_cache();
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    // Not signed, and of another shape: a newer version may differ in every other respect.
    for newer in [
        text.replace("\"format_version\": 1", "\"format_version\": 2"),
        r#"{"format": "tokengrid-cache", "format_version": 7}"#.into(),
    ] {
        fs::write(dir.join("manifest.json"), newer).unwrap();
        for error in [TokenCache::open(&dir).unwrap_err(), verify(&dir, &mut |_, _| {}).unwrap_err()] {
            assert!(matches!(error, CacheError::NewerVersion { found: 2 | 7, supported: 1, .. }), "{error}");
            assert!(error.to_string().contains("is newer than 1"), "{error}");
        }
    }
}

#[test]
fn what_is_no_cache_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    assert!(matches!(TokenCache::open(temp.path()), Err(CacheError::NotACache { .. })));
    assert!(matches!(TokenCache::open(&temp.path().join("nowhere")), Err(CacheError::NotACache { .. })));
    for text in ["", "{}", "[]", "\"format\"", "{\"format\": \"tokengrid-cache\"}", "PAR1"] {
        fs::write(temp.path().join("manifest.json"), text).unwrap();
        let error = TokenCache::open(temp.path()).unwrap_err();
        assert!(error.to_string().contains("manifest.json"), "{error}");
    }
}

/// Footers with altered bytes and a manifest that vouches for them: what a checksum cannot catch, because whoever wrote
/// the file wrote the checksum too. Opening and reading may fail, and may not panic.
#[test]
fn forged_footers_do_not_panic() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let mut job = small_job();
    job.source.images = 4;
    run(&dir, &job, OpenMode::Resume).unwrap();
    let path = dir.join("shard-00000-00000.parquet");
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let cache = TokenCache::open(&dir).unwrap();
    let footer = cache.manifest().shards[0].footer.clone();
    let bytes = fs::read(&path).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for trial in 0..3000u64 {
        let mut forged = bytes.clone();
        for n in 0..1 + trial % 3 {
            let place = footer.offset + scramble(trial * 7 + n) % footer.bytes;
            forged[place as usize] ^= 1 << (scramble(trial + n) % 8);
        }
        let blake3 = blake3::hash(&forged[footer.offset as usize..]).to_hex();
        fs::write(&path, &forged).unwrap();
        fs::write(dir.join("manifest.json"), sign(&manifest.replace(&footer.blake3, &blake3))).unwrap();
        match TokenCache::open(&dir) {
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("shard-00000-00000.parquet"), "{error}");
            }
            Ok(cache) => {
                opened += 1;
                let mut tokens = vec![0; 15];
                for row in 0..cache.num_rows() {
                    cache.tokens_into(row, &mut tokens);
                    let _ = cache.meta(row);
                }
            }
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}

#[test]
fn progress_counts_every_byte() {
    let (_temp, dir) = small_cache();
    let mut calls = Vec::new();
    let report = verify(&dir, &mut |done, total| calls.push((done, total))).unwrap();
    let (done, total) = *calls.last().unwrap();
    assert_eq!((done, report.bytes), (total, total));
    assert!(calls.is_sorted());
    assert_eq!((report.rows, report.shards), (68, 5));
}
