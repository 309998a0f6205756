//! From bucket to bucket on every server that there is to test against: the local content hash, one publisher, one clear line.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/buckets.rs"]
mod world;

use common::{photos, text};
use std::sync::Arc;
use tokengrid_test_support::buckets::{Fate, Kind, Proxy, Request};
use world::{World, local_hash, shards, tokenize};

#[track_caller]
fn a_job_runs_from_bucket_to_bucket(kind: Kind) {
    let Some(world) = World::with(kind) else { return };
    let source = photos(world.folder.path(), 2, 3);
    let expected = local_hash(&source, &world.path("local"));
    shards(&source, &world.path("wds"));
    world.server.put_folder(&source, "photos");
    world.server.put_folder(&world.path("wds"), "wds");
    let url = |key| world.server.url(key);
    let report = world.json(&["ingest", &url("photos")]);
    assert_eq!((&report["ok"], &report["bad"]), (&6.into(), &serde_json::json!([])), "{report}");
    let (from, shards, cache) = (url("photos"), url("wds/{000..001}.tar"), url("a/cache"));
    let made = world.json(&tokenize(&from, &cache));
    assert_eq!(made["content_hash"], expected.as_str());
    let again = world.json(&tokenize(&from, &cache));
    assert_eq!((&again["images_now"], &again["content_hash"]), (&0.into(), &expected.as_str().into()));
    for rank in ["0", "1"] {
        let command = world.command(world.server.address(), &format!("machine-{rank}"));
        let ranks = ["--rank", rank, "--world-size", "2"];
        world.json_by(command, &[&tokenize(&shards, &url("by-two"))[..], &ranks].concat());
    }
    for cache in [&cache, &url("by-two")] {
        assert_eq!(world.json(&["cache", "info", cache])["content_hash"], expected.as_str(), "{cache}");
        assert_eq!(world.json(&["cache", "verify", cache])["ok"], true, "{cache}");
    }
    let keys = [world.server.keys("a/cache/"), world.server.keys("by-two/")].concat();
    assert!(keys.iter().all(|key| !key.contains("/.")), "nothing but the caches is left: {keys:?}");
    world.server.put("a/cache/.part-00000-0000000000", b"left");
    assert_eq!(world.json(&["cache", "clean", &cache])["objects"], 1);
    the_second_publisher_is_told(world);
}

/// Another job publishes at the last moment: when this one's manifest is on its way.
#[track_caller]
fn the_second_publisher_is_told(world: World) {
    let other = world.server.get("a/cache/manifest.json").unwrap();
    let wider = photos(&world.path("wider"), 3, 2);
    let world = Arc::new(world);
    let (shared, manifest) = (Arc::clone(&world), other.clone());
    let proxy = Proxy::start(world.server.address(), move |_, request| {
        // Google's client encodes more of a key than it must.
        let path = request.path().split('?').next().unwrap().replace("%2F", "/").replace("%2E", ".");
        if request.method() == "PUT" && path.ends_with("/late/manifest.json") {
            shared.server.put("late/manifest.json", &manifest);
        }
        Fate::Pass
    });
    let late = world.server.url("late");
    let said = world.fails_by(world.command(proxy.address(), "stage"), &tokenize(text(&wider), &late));
    assert!(said.contains("published by another job") && said.contains(&late), "{said}");
    assert_eq!(world.server.get("late/manifest.json").unwrap(), other, "what was published stays");
}

/// Removes the condition of a write, as a store without conditional writes.
fn without_conditions(_: usize, request: &Request) -> Fate {
    if request.header("if-none-match").is_some() { Fate::Unconditional } else { Fate::Pass }
}

#[test]
fn a_server_that_heeds_no_conditions_is_refused_unless_nobody_else_writes() {
    let Some(world) = World::with(Kind::SeaweedFs) else { return };
    let source = photos(world.folder.path(), 2, 2);
    let proxy = Proxy::start(world.server.address(), without_conditions);
    // Signatures cover the conditions, so nothing is signed.
    let unsigned = || {
        let mut command = world.command(proxy.address(), "stage");
        command.env("AWS_SKIP_SIGNATURE", "true");
        command
    };
    let arguments = tokenize(text(&source), "s3://bucket/cache");
    let said = world.fails_by(unsigned(), &arguments);
    assert!(said.contains("s3://bucket has no conditional writes") && said.contains("--single-writer"), "{said}");
    assert!(world.server.keys("cache/").is_empty(), "nothing is left");
    let made = world.json_by(unsigned(), &[&arguments[..], &["--single-writer"]].concat());
    assert_eq!(made["content_hash"], local_hash(&source, &world.path("local")).as_str());
}

#[track_caller]
fn what_is_wrong_is_said_in_one_line(kind: Kind) {
    let Some(world) = World::with(kind) else { return };
    let (address, url) = (world.server.address(), world.server.url("cache"));
    let elsewhere = url.replace("bucket", "nowhere");
    let said = world.fails_by(world.command(address, "stage"), &["ingest", &elsewhere]);
    assert!(said.contains("there is no bucket 'nowhere'"), "{said}");
    let mut command = world.command(address, "stage");
    // Another key than the server's: it checks the signature.
    command.env("AWS_SECRET_ACCESS_KEY", "wrong").env("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=");
    let said = world.fails_by(command, &["ingest", &url]);
    // Azurite says of such a signature what Azure says of a request that a rule of its network forbids.
    let expected = if kind == Kind::Azurite { "access is denied" } else { "does not accept the credentials" };
    assert!(said.contains(expected) && said.contains(&url), "{said}");
}

#[test]
fn seaweedfs_runs_a_job() {
    a_job_runs_from_bucket_to_bucket(Kind::SeaweedFs);
}

#[test]
fn seaweedfs_is_understood_when_it_refuses() {
    what_is_wrong_is_said_in_one_line(Kind::SeaweedFs);
}

#[test]
fn azure_runs_a_job() {
    a_job_runs_from_bucket_to_bucket(Kind::Azurite);
}

#[test]
fn azure_is_understood_when_it_refuses() {
    what_is_wrong_is_said_in_one_line(Kind::Azurite);
}

#[test]
fn google_runs_a_job() {
    a_job_runs_from_bucket_to_bucket(Kind::FakeGcs);
}
