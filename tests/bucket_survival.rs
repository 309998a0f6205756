//! A job from bucket to bucket, in two processes, killed at random moments behind a faulty network.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/buckets.rs"]
mod world;

use common::{Draws, many_photos, photos};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokengrid_test_support::buckets::{Answer, Fate, Proxy, Request, s3_variables};
use world::{World, local_hash, tokenize};

/// Kills of a run of this test; `TOKENGRID_BUCKET_KILLS` names more.
const KILLS: usize = 6;

/// One request in eight goes wrong in one of several ways.
fn faults(number: usize, request: &Request) -> Fate {
    match number % 40 {
        3 => Fate::Answer(Answer::status_only("500 Internal Server Error")),
        11 => Fate::Answer(Answer::status_only("503 Slow Down")),
        19 => Fate::Slow(Duration::from_millis(300)),
        27 if request.method() == "GET" => Fate::Tear,
        35 => Fate::Lose,
        _ => Fate::Pass,
    }
}

fn start(world: &World, proxy: &Proxy, rank: usize, stage: &str, out: &str) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    command.args(tokenize("s3://bucket/photos", out)).args([
        "--rank",
        &rank.to_string(),
        "--world-size",
        "2",
        "--quiet",
    ]);
    command.env("TOKENGRID_STAGE_DIR", world.path(stage)).envs(s3_variables(proxy.address()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a process that must succeed.
#[track_caller]
fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn kills_at_random_moments_change_nothing() {
    let Some(world) = World::new() else { return };
    let kills_wanted = std::env::var("TOKENGRID_BUCKET_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let source = many_photos(world.folder.path(), 24);
    let expected = local_hash(&source, &world.path("local"));
    world.server.put_folder(&source, "photos");
    let proxy = Proxy::start(world.server.address(), faults);
    let (mut kills, mut caches, mut draws) = (0, 0, Draws(0x9E37_79B9_7F4A_7C15));
    while kills < kills_wanted {
        let out = format!("s3://bucket/cache-{caches}");
        caches += 1;
        for round in 0.. {
            // Each start on its own machine, which knows nothing of what the others did.
            let stage = |rank: usize| format!("stage-{caches}-{round}-{rank}");
            let mut ranks = [0, 1].map(|rank| start(&world, &proxy, rank, &stage(rank), &out));
            if kills >= kills_wanted || round > 3 {
                ranks.into_iter().for_each(finish);
                break;
            }
            std::thread::sleep(Duration::from_secs_f64(8.0 * draws.next()));
            let victim = usize::from(draws.next() < 0.5);
            ranks[victim].kill().unwrap();
            kills += 1;
            let [first, second] = ranks;
            let (mut killed, other) = if victim == 0 { (first, second) } else { (second, first) };
            killed.wait().unwrap();
            finish(other);
        }
        let info = world.json(&["cache", "info", &out]);
        assert_eq!(info["content_hash"], expected.as_str(), "after kill {kills}");
        let prefix = format!("{}/", out.trim_start_matches("s3://bucket/"));
        let keys = world.server.keys(&prefix);
        assert!(keys.iter().all(|key| !key.contains("/.")), "nothing of the killed runs stays: {keys:?}");
        assert_eq!(world.json(&["cache", "verify", &out])["ok"], true);
    }
}

#[test]
fn an_outage_stops_the_job_and_puts_no_image_into_quarantine() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 3, 4);
    let expected = local_hash(&source, &world.path("local"));
    world.server.put_folder(&source, "photos");
    // From the sixth image on the server always answers that it is busy.
    let images = AtomicUsize::new(0);
    let proxy = Proxy::start(world.server.address(), move |_, request| {
        let is_image = request.method() == "GET" && request.path().contains("/photos/n");
        match is_image && images.fetch_add(1, Ordering::SeqCst) >= 5 {
            true => Fate::Answer(Answer::status_only("503 Slow Down")),
            false => Fate::Pass,
        }
    });
    let arguments = tokenize("s3://bucket/photos", "s3://bucket/cache");
    let said = world.fails_by(world.command(proxy.address(), "stage"), &arguments);
    assert!(said.contains("s3://bucket/photos/n") && said.contains("503"), "{said}");
    let said = world.fails_by(world.command(proxy.address(), "stage"), &["ingest", "s3://bucket/photos"]);
    assert!(said.contains("503"), "a check-up does not call good images bad: {said}");
    let made = world.json(&arguments);
    assert_eq!((&made["content_hash"], &made["quarantined"]), (&expected.as_str().into(), &0.into()));
}
