//! `tokenize` when it is killed, when the disk is full, and when the folder cannot be written.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/namespace.rs"]
mod namespace;

use common::{Draws, json, many_photos as many, sorted, text};
use namespace::in_namespace;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: usize = 100;

/// Small images and small row groups: many moments at which a kill matters.
fn arguments<'a>(source: &'a Path, out: &'a Path) -> Vec<&'a str> {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "16", "--out", text(out), "--quiet"];
    [&fixed[..], &["--rows-per-group", "8", "--threads", "1", "--batch-size", "4"]].concat()
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn content_hash(cache: &Path) -> String {
    json(&["cache", "verify", text(cache)]);
    json(&["cache", "info", text(cache)])["content_hash"].as_str().unwrap().to_string()
}

#[test]
fn a_hundred_kills_at_random_moments_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = many(folder.path(), 160);
    let whole = folder.path().join("whole");
    let started = Instant::now();
    assert!(start(&arguments(&source, &whole)).wait().unwrap().success());
    let usual = started.elapsed();
    let expected = content_hash(&whole);
    let (mut kills, mut caches, mut draws) = (0, 0, Draws(0x9E37_79B9_7F4A_7C15));
    while kills < KILLS {
        let cache = folder.path().join(format!("cache-{caches}"));
        caches += 1;
        // Killed until it happens to end before its kill.
        loop {
            let mut child = start(&arguments(&source, &cache));
            std::thread::sleep(usual.mul_f64(1.1 * draws.next()));
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if ended.is_some_and(|status| status.success()) || kills >= KILLS {
                break;
            }
            assert!(ended.is_none(), "a run that was not killed succeeds: {ended:?}");
        }
        assert!(start(&arguments(&source, &cache)).wait().unwrap().success(), "after kill {kills}");
        assert_eq!(content_hash(&cache), expected, "after kill {kills}");
        let left: Vec<_> = sorted(&cache).into_iter().filter(|path| is_leftover(path)).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "nothing of the killed runs stays");
    }
}

fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.contains("part") || name.contains("tmp")
}

#[test]
fn several_processes_one_of_them_killed_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = many(folder.path(), 60);
    let mut hashes = vec![];
    for world in [1usize, 2, 4] {
        let cache = folder.path().join(format!("cache-{world}"));
        let begin = |rank: usize| {
            let (rank, world) = (rank.to_string(), world.to_string());
            start(&[&arguments(&source, &cache)[..], &["--rank", &rank, "--world-size", &world]].concat())
        };
        let mut children: Vec<Child> = (0..world).map(begin).collect();
        std::thread::sleep(Duration::from_millis(700));
        children[world - 1].kill().unwrap();
        children[world - 1].wait().unwrap();
        children[world - 1] = begin(world - 1);
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        hashes.push(content_hash(&cache));
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn threads_and_batch_sizes_give_one_content_hash() {
    let folder = tempfile::tempdir().unwrap();
    let source = many(folder.path(), 20);
    let mut hashes = vec![];
    for (number, (batch, threads)) in [("1", "1"), ("7", "2"), ("64", "3")].into_iter().enumerate() {
        let cache = folder.path().join(format!("cache-{number}"));
        let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&cache)];
        let made = json(&[&fixed[..], &["--batch-size", batch, "--threads", threads]].concat());
        hashes.push(made["content_hash"].as_str().unwrap().to_string());
    }
    assert_eq!(hashes[0], hashes[1], "batches of 1 and 7");
    assert_eq!(hashes[0], hashes[2], "batches of 1 and 64");
}

/// Runs `script` in a namespace with a mount point `$1`, a place `$2` to which it copies the cache that it makes below the
/// mount point, and the command as the rest. What it said, and the copy.
fn on_a_file_system_of_its_own(folder: &Path, source: &Path, script: &str) -> Option<(String, PathBuf)> {
    let (mount, copy) = (folder.join("mount"), folder.join("copy"));
    std::fs::create_dir(&mount).unwrap();
    let (cache, program) = (mount.join("cache"), assert_cmd::cargo::cargo_bin("tokengrid"));
    let command = [&[text(&mount), text(&copy), text(&program)], &arguments(source, &cache)[..]].concat();
    let output = in_namespace(script, &command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some((said, copy))
}

#[test]
fn a_full_disk_is_named_and_the_job_goes_on_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, whole) = (many(folder.path(), 400), folder.path().join("whole"));
    let script = r#"
        mount=$1 copy=$2; shift 2
        mount -t tmpfs -o size=256k tmpfs "$mount"
        head -c 200k /dev/zero > "$mount/filler"
        if "$@" 2> "$mount.message"; then echo 'the disk was not full'; exit 1; fi
        cat "$mount.message"
        rm "$mount/filler"
        "$@"
        cp -r "$mount/cache" "$copy"
    "#;
    let Some((said, copy)) = on_a_file_system_of_its_own(folder.path(), &source, script) else { return };
    assert!(said.contains("No space left on device") && said.contains("mount/cache"), "{said}");
    assert!(start(&arguments(&source, &whole)).wait().unwrap().success());
    assert_eq!(content_hash(&copy), content_hash(&whole));
}

#[test]
fn a_folder_that_becomes_read_only_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = many(folder.path(), 40);
    let script = r#"
        mount=$1 copy=$2; shift 2
        mount -t tmpfs -o size=4m tmpfs "$mount"
        "$@" --limit 20
        mount -o remount,ro "$mount"
        if "$@" --overwrite 2> "$mount.message"; then echo 'the file system was not read-only'; exit 1; fi
        cat "$mount.message"
        cp -r "$mount/cache" "$copy"
    "#;
    let Some((said, copy)) = on_a_file_system_of_its_own(folder.path(), &source, script) else { return };
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(json(&["cache", "info", text(&copy)])["rows"], 20, "what was there is there");
    content_hash(&copy);
}
