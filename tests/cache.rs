//! The cache commands on real caches: their output, and damage while they are read.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

#[path = "common/caches.rs"]
mod caches;
mod common;
#[path = "common/viewer.rs"]
mod viewer;

use caches::tokenize;
use common::{fails, json, photos, sorted, text};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokengrid_cache::{CacheWriter, JobSpec, OpenMode, Row, TokenCache};
use viewer::{Viewer, made_cache};

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

#[test]
#[cfg(unix)]
fn a_shard_that_is_cut_while_it_is_read_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    tokengrid_cache::write_synthetic_cache(&dir, 40_000, 1).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokengrid"));
    command.args(["bench", "loader", text(&dir), "--samples", "2000000000"]).stdout(Stdio::null());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let shard = dir.join("shard-00000-00000.parquet");
    std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(100_000).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("shard-00000-00000.parquet: byte ") && stderr.contains("truncated"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
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
        let output = Command::new("sh").args(["-c", &limited]).output().unwrap();
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

/// Two equal caches in row groups of 8, and the first shard of the first one, of which a bit of row 11's grid was turned round.
fn damaged_and_whole(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let [damaged, whole] = ["damaged", "whole"].map(|name| folder.join(name));
    made_cache(&damaged, 40, |_, _, _| {});
    made_cache(&whole, 40, |_, _, _| {});
    let shard = sorted(&damaged).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
    let grid = TokenCache::open(&damaged).unwrap().packed_row(11).to_vec();
    let mut bytes = std::fs::read(&shard).unwrap();
    let place = bytes.windows(grid.len()).position(|bytes| bytes == grid).unwrap();
    bytes[place + 5] ^= 16;
    std::fs::write(&shard, bytes).unwrap();
    (damaged, whole, shard)
}

#[test]
fn an_altered_grid_is_named_by_every_command_that_reads_its_row_group() {
    let temp = tempfile::tempdir().unwrap();
    let (damaged, whole, shard) = damaged_and_whole(temp.path());
    let (cache, whole) = (text(&damaged), text(&whole));
    let exported = ["npy", "parquet-list", "jsonl", "memmap", "llamagen"]
        .map(|format| vec!["export", cache, "--format", format, "--out", "OUT"]);
    let mut reading = vec![
        vec!["show", cache, "--index", "11"],
        vec!["show", cache, "--index", "8"],
        vec!["head", cache, "-n", "12"],
        vec!["find", cache, "--near", "0"],
        vec!["find", cache, "--near", "11", "--distance", "0"],
        vec!["leak", cache, whole],
        vec!["leak", whole, cache],
        vec!["leak", cache, cache],
        vec!["stats", cache],
        vec!["classes", cache],
        vec!["diff", cache, whole],
        vec!["diff", whole, cache],
        vec!["export", cache, "--format", "1x", "--bit-order", "low-first", "--out", "OUT"],
        vec!["merge", "OUT", cache],
        vec!["subset", cache, "--limit", "20", "--out", "OUT"],
    ];
    reading.extend(exported);
    let name = shard.file_name().unwrap().to_str().unwrap();
    for (nth, command) in reading.iter().enumerate() {
        // Each has a folder of its own: what a command wrote before it came to the damage stays, to be continued.
        let out = temp.path().join(format!("out-{nth}"));
        let typed: Vec<&str> = command.iter().map(|part| if *part == "OUT" { text(&out) } else { part }).collect();
        let message = fails(&[&["cache"], &typed[..]].concat(), 1);
        let is_named = message.contains(&format!("{name}, row group 1: column tokens was altered"));
        assert!(is_named, "{command:?}: {message}");
    }
    let verified = common::tokengrid().args(["cache", "verify", cache]).output().unwrap();
    let said = [verified.stdout, verified.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains(&format!("{name}, row group 1")));
    assert_eq!(verified.status.code(), Some(1));
    // Neither other row groups nor columns are damaged, and these do not read the grids of this one, or only rows of it.
    for command in [
        vec!["info", cache],
        vec!["show", cache, "--index", "7"],
        vec!["head", cache, "-n", "8"],
        vec!["find", cache, "--class", "fish"],
        vec!["find", cache, "--key", "11.jpg"],
        vec!["find", cache, "--view", "0"],
    ] {
        let done = common::tokengrid().args([&["cache"], &command[..]].concat()).output().unwrap();
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    // The benchmark of the loader reads grids as training does.
    json(&["bench", "loader", cache, "--samples", "100", "--rounds", "1"]);
}

#[test]
fn the_inspector_shows_an_altered_grid_as_damaged_and_computes_nothing_from_it() {
    let temp = tempfile::tempdir().unwrap();
    let (cache, _, shard) = damaged_and_whole(temp.path());
    let name = shard.file_name().unwrap().to_str().unwrap();
    let viewer = Viewer::start(&cache, &[]);
    assert_eq!(viewer.json("/api/row/7")["damage"], serde_json::Value::Null);
    let row = viewer.json("/api/row/11");
    assert!(row["damage"].as_str().unwrap().contains("column tokens was altered"), "{row}");
    // Known from then on.
    let rows = viewer.json("/api/rows?rows=7-8");
    assert_eq!([0, 1].map(|place| rows["items"][place]["damage"].is_null()), [true, false], "{rows}");
    for target in ["/api/similar/0", "/api/rows?code=5"] {
        let (status, answer) = viewer.ask(target);
        assert!(status == 503 && answer["error"].as_str().unwrap().contains(name), "{target}: {status} {answer}");
    }
    for target in ["/api/statistics", "/api/map"] {
        let state = viewer.begun(target);
        assert!(state["state"] == "failed" && state["error"].as_str().unwrap().contains(name), "{target}: {state}");
    }
}
