//! Only one writer at a time may write a cache in a bucket, and readers of a cache share fetched files.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/buckets.rs"]
mod world;

use common::{photos, text};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokengrid_test_support::buckets::{Fate, Proxy, Request};
use world::{World, local_hash, tokenize};

#[test]
fn of_two_publishers_the_first_one_wins_and_the_other_says_so() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 2);
    world.json(&tokenize(text(&source), "s3://bucket/other"));
    let other = world.server.get("other/manifest.json").unwrap();
    let world = Arc::new(world);
    // Another job publishes at the last moment: when this one's manifest is on its way.
    let (shared, manifest) = (Arc::clone(&world), other.clone());
    let proxy = Proxy::start(world.server.address(), move |_, request| {
        if request.method() == "PUT" && request.path().ends_with("/cache/manifest.json") {
            shared.server.put("cache/manifest.json", &manifest);
        }
        Fate::Pass
    });
    let wider = photos(&world.path("wider-than-the-other"), 3, 2);
    let said = world.fails_by(world.command(proxy.address(), "stage"), &tokenize(text(&wider), "s3://bucket/cache"));
    assert!(said.contains("published by another job") && said.contains("s3://bucket/cache"), "{said}");
    assert_eq!(world.server.get("cache/manifest.json").unwrap(), other, "what was published stays");
}

/// Removes the condition of a write, as a store without conditional writes.
fn without_conditions(_: usize, request: &Request) -> Fate {
    if request.header("if-none-match").is_some() { Fate::Unconditional } else { Fate::Pass }
}

#[test]
fn stores_without_conditional_writes_are_refused_unless_nobody_else_writes() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 2);
    let proxy = Proxy::start(world.server.address(), without_conditions);
    let arguments = tokenize(text(&source), "s3://bucket/cache");
    let said = world.fails_by(world.command(proxy.address(), "stage"), &arguments);
    assert!(said.contains("s3://bucket has no conditional writes") && said.contains("--single-writer"), "{said}");
    assert!(world.server.keys("cache/").is_empty(), "nothing is left");
    let command = world.command(proxy.address(), "stage");
    let made = world.json_by(command, &[&arguments[..], &["--single-writer"]].concat());
    assert_eq!(made["content_hash"], local_hash(&source, &world.path("local")).as_str());
}

#[test]
fn a_lease_that_is_renewed_is_respected_and_one_that_is_not_is_taken_over() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 2);
    let world = Arc::new(world);
    let arguments = tokenize(text(&source), "s3://bucket/cache");
    let lease = |renewals: u64| {
        let holder = r#"{"host":"elsewhere","pid":7,"machine":"another","began":1,"renewals":"#;
        format!("{holder}{renewals}}}").into_bytes()
    };
    world.server.put("cache/.lease-00000.json", &lease(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let (shared, over) = (Arc::clone(&world), Arc::clone(&is_over));
    let holder = thread::spawn(move || {
        for renewals in 1.. {
            if over.load(Ordering::SeqCst) {
                return;
            }
            shared.server.put("cache/.lease-00000.json", &lease(renewals));
            thread::sleep(Duration::from_millis(500));
        }
    });
    let said = world.fails_by(world.command(world.server.address(), "stage"), &arguments);
    assert!(said.contains("process 7 on elsewhere, which is alive"), "{said}");
    is_over.store(true, Ordering::SeqCst);
    holder.join().unwrap();
    // The lease is no longer renewed: it expires after a while.
    let made = world.json(&arguments);
    assert_eq!(made["content_hash"], local_hash(&source, &world.path("local")).as_str());
    assert!(world.server.keys("cache/").iter().all(|key| !key.contains("/.")));
}

#[test]
fn processes_of_a_machine_share_what_one_of_them_fetches() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 4);
    world.json(&tokenize(text(&source), "s3://bucket/cache"));
    let whole = world.json(&["cache", "info", "s3://bucket/cache"])["bytes"].as_u64().unwrap();
    let proxy = Proxy::start(world.server.address(), |_, request| match request.path().ends_with(".parquet") {
        true => Fate::Slow(Duration::from_millis(300)),
        false => Fate::Pass,
    });
    let read =
        || world.command(proxy.address(), "shared").args(["cache", "stats", "s3://bucket/cache"]).output().unwrap();
    let outputs: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, outputs[0].stdout);
    }
    // The manifest is read by each of them.
    let manifest = world.server.get("cache/manifest.json").unwrap().len() as u64;
    let most = whole + 4 * manifest + 1000;
    assert!(proxy.body_bytes() <= most, "{} bytes, {most} are enough", proxy.body_bytes());
}

#[test]
fn training_starts_from_a_cache_in_a_bucket() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 4);
    world.json(&tokenize(text(&source), "s3://bucket/cache"));
    let run = world.path("run");
    let fixed = ["train", "ar", "--cache", "s3://bucket/cache", "--out", text(&run), "--set", "model.preset=tiny"];
    let sets = ["--set", "train.max_steps=2", "--set", "train.batch_size=2"];
    world.json(&[&fixed[..], &sets].concat());
    assert!(run.join("checkpoints/latest").exists());
}
