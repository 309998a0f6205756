//! Training from a cache in a bucket: it begins before the shards are local, and its results equal those from a local cache.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/training.rs"]
mod training;
#[path = "common/buckets.rs"]
mod world;

use common::{json, photos, sorted, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokengrid_test_support::buckets::{Answer, Fate, Proxy, Request};
use world::{World, tokenize};

/// Timeout, generous enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A cache of three shards, in a folder and in the bucket.
#[track_caller]
fn world() -> Option<(World, PathBuf)> {
    let world = World::new()?;
    let (source, local) = (photos(world.folder.path(), 3, 4), world.path("local"));
    for rank in 0..3 {
        let rank = rank.to_string();
        json(&[&tokenize(text(&source), text(&local))[..], &["--rank", &rank, "--world-size", "3"]].concat());
    }
    world.server.put_folder(&local, "cache");
    assert_eq!(world.server.keys("cache/shard-").len(), 3);
    Some((world, local))
}

fn arguments(cache: &str, out: &Path, steps: usize) -> Vec<String> {
    // Micro-batches that are smaller than a step and cross the ends of epochs.
    let steps = format!("max_steps={steps}");
    let settings = ["batch_size=2", "global_batch=5", "precision=fp32", "checkpoint_every=1", &steps];
    training::arguments(Path::new(cache), out, &settings)
}

/// The results of a run: the losses of its steps, and the weights.
fn outcome(run: &Path) -> (Vec<Value>, Vec<u8>) {
    let losses = training::rows(run).iter().map(|row| row["train/loss"].clone()).collect();
    (losses, std::fs::read(run.join("checkpoints/latest/model.safetensors")).unwrap())
}

#[track_caller]
fn train(mut command: assert_cmd::Command, arguments: &[String]) -> String {
    let output = command.args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// The shard that is read from byte 0 on. Only staging does so: other reads skip the bytes before the first row.
fn staged_shard(request: &Request) -> Option<String> {
    let shard = request.path().rsplit('/').next().filter(|name| name.starts_with("shard-"))?;
    let is_whole =
        request.method() == "GET" && request.header("range").is_some_and(|range| range.starts_with("bytes=0-"));
    is_whole.then(|| shard.to_owned())
}

/// Steps that a run has logged.
fn num_steps(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.matches('\n').count())
}

/// Waits for the first step of a run.
fn wait_for_step(run: &Path) -> bool {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if num_steps(run) > 0 {
            return true;
        }
        sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn the_first_step_comes_before_the_shards_and_the_run_is_that_of_a_local_cache() {
    let Some((world, local)) = world() else { return };
    let expected = world.path("run-local");
    train(common::tokengrid(), &arguments(text(&local), &expected, 12));
    // Before the first step is done, no shard or all but one are on this machine.
    for held in [3, 1] {
        let out = world.path(&format!("run-{held}"));
        let (run, asked) = (out.clone(), Arc::new(Mutex::new(BTreeSet::new())));
        let seen = Arc::clone(&asked);
        let proxy = Proxy::start(world.server.address(), move |_, request| {
            if let Some(shard) = staged_shard(request) {
                let mut asked = seen.lock().unwrap();
                asked.insert(shard);
                let is_held = asked.len() > 3 - held;
                drop(asked);
                if is_held && !wait_for_step(&run) {
                    return Fate::Answer(Answer::status_only("400 No step was done"));
                }
            }
            Fate::Pass
        });
        let stage = format!("stage-{held}");
        let said = train(world.command(proxy.address(), &stage), &arguments("s3://bucket/cache", &out, 12));
        assert_eq!(outcome(&out), outcome(&expected), "{said}");
        assert_eq!(asked.lock().unwrap().len(), 3, "shards are staged meanwhile");
        // Other commands use the shards that the run has left in the stage folder.
        let classes = ["cache", "classes", "s3://bucket/cache"];
        let after = world.json_by(world.command(world.server.address(), &stage), &classes);
        assert_eq!(after, json(&["cache", "classes", text(&local)]));
    }
}

#[test]
fn faults_and_a_kill_in_the_middle_of_staging_change_nothing() {
    let Some((world, local)) = world() else { return };
    let (expected, out) = (world.path("run-local"), world.path("run"));
    train(common::tokengrid(), &arguments(text(&local), &expected, 8));
    let faults = |number: usize| match number % 12 {
        2 => Fate::Answer(Answer::status_only("503 Slow Down")),
        5 => Fate::Tear,
        7 => Fate::Lose,
        9 => Fate::Slow(Duration::from_millis(200)),
        _ => Fate::Pass,
    };
    // The shards never arrive; the process is killed after its first step.
    let holding = Proxy::start(world.server.address(), move |number, request| match staged_shard(request) {
        Some(_) => Fate::Slow(PATIENCE),
        None => faults(number),
    });
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    command.args(arguments("s3://bucket/cache", &out, 8)).env("TOKENGRID_STAGE_DIR", world.path("stage"));
    command.envs(world.server.variables(holding.address()));
    let mut killed = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has_begun = wait_for_step(&out);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(has_begun, "a step needs no shard");
    let proxy = Proxy::start(world.server.address(), move |number, _| faults(number));
    train(world.command(proxy.address(), "stage"), &arguments("s3://bucket/cache", &out, 8));
    assert_eq!(outcome(&out), outcome(&expected));
}

#[test]
fn a_cache_that_does_not_fit_into_the_stage_folder_is_still_trained_from() {
    let Some((world, local)) = world() else { return };
    let (expected, out) = (world.path("run-local"), world.path("run"));
    train(common::tokengrid(), &arguments(text(&local), &expected, 6));
    let shard = std::fs::metadata(sorted(&local).iter().rfind(|file| text(file).ends_with(".parquet")).unwrap());
    // Room for one of three.
    let room = (shard.unwrap().len() * 3 / 2).to_string();
    let mut limited = arguments("s3://bucket/cache", &out, 6);
    limited.extend(["--stage-size".to_owned(), room]);
    let said = train(world.command(world.server.address(), "stage"), &limited);
    let warning =
        said.lines().find(|line| line.contains("no room for 2 of 3 shards")).unwrap_or_else(|| panic!("{said}"));
    assert!(warning.contains("--stage-size") && !warning.contains("rows/s"), "a rate would be a guess: {warning}");
    assert_eq!(outcome(&out), outcome(&expected));
}

#[test]
fn a_run_whose_server_fails_says_where_it_continues() {
    let Some((world, _)) = world() else { return };
    let out = world.path("run");
    let run = out.clone();
    let proxy = Proxy::start(world.server.address(), move |_, _| match num_steps(&run) >= 6 {
        true => Fate::Answer(Answer::status_only("503 Slow Down")),
        false => Fate::Pass,
    });
    // No shard is staged, and few rows are read ahead.
    let begin = |steps: usize, address| {
        let mut arguments = arguments("s3://bucket/cache", &out, steps);
        arguments
            .extend(["--set", "train.checkpoint_every=4", "--stage-size", "1", "--requests", "2"].map(str::to_owned));
        world.command(address, "stage").args(arguments).output().unwrap()
    };
    let failed = begin(1_000_000, proxy.address());
    let stderr = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    let (said, before) = lines.split_last().unwrap();
    assert!(
        before.iter().any(|line| line.contains("WARN") && line.contains("503") && line.contains("repeated")),
        "{stderr}"
    );
    let saved = std::fs::canonicalize(out.join("checkpoints/latest")).unwrap();
    let saved: u64 = text(&saved).rsplit('-').next().unwrap().parse().unwrap();
    assert!(saved >= 4 && saved.is_multiple_of(4), "{saved}");
    for expected in
        [&format!("last checkpoint is that of step {saved}:"), "same command", "s3://bucket/cache/shard-", "503"]
    {
        assert!(said.contains(expected), "`{expected}` is missing: {said}");
    }
    let again = begin(saved as usize + 2, world.server.address());
    let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && stderr.contains(&format!("resuming at step {saved} ")), "{stderr}");
}

#[test]
fn a_tokenizer_is_not_trained_on_other_images_while_the_server_fails() {
    let Some((world, _)) = world() else { return };
    let out = world.path("run");
    world.server.put_folder(&world.path("photos"), "photos");
    let run = out.clone();
    let proxy = Proxy::start(world.server.address(), move |_, _| match num_steps(&run) >= 3 {
        // Unlike 503, it is not asked again.
        true => Fate::Answer(Answer::status_only("403 Forbidden")),
        false => Fate::Pass,
    });
    let settings = [
        "model.preset=tiny",
        "train.max_steps=1000000",
        "train.image_size=32",
        "train.batch_size=2",
        "train.checkpoint_every=2",
    ];
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let fixed = [
        "train",
        "tokenizer",
        "--data",
        "s3://bucket/photos",
        "--out",
        text(&out),
        "--device",
        "cpu",
        "--threads",
        "1",
    ];
    let arguments: Vec<&str> = fixed.into_iter().chain(set).collect();
    let said = world.fails_by(world.command(proxy.address(), "stage"), &arguments);
    for expected in ["last checkpoint is that of step ", "same command", "s3://bucket/photos/", "access is denied"] {
        assert!(said.contains(expected), "`{expected}` is missing: {said}");
    }
}

#[test]
fn a_shard_that_is_damaged_in_the_bucket_ends_the_run_with_an_error_that_names_it() {
    let Some((world, local)) = world() else { return };
    let shard = sorted(&local).into_iter().find(|file| text(file).ends_with(".parquet")).unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = std::fs::read(&shard).unwrap();
    // In the first grid, which has no checksum of its own when it is read alone.
    bytes[40] ^= 1;
    world.server.put(&format!("cache/{name}"), &bytes);
    let endless = arguments("s3://bucket/cache", &world.path("run"), 1_000_000);
    let said = world.fails_by(
        world.command(world.server.address(), "stage"),
        &endless.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(said.contains(&name) && said.contains("checksum"), "{said}");
    // The labels are known from the start.
    bytes[40] ^= 1;
    bytes.pop();
    world.server.put(&format!("cache/{name}"), &bytes);
    let said = world.fails_by(
        world.command(world.server.address(), "stage"),
        &endless.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(said.contains(&name) && said.contains("bytes, expected"), "{said}");
}

#[test]
fn files_that_a_configuration_names_are_read_from_a_bucket() {
    let Some((world, local)) = world() else { return };
    let (first, expected, out) = (world.path("first"), world.path("run-local"), world.path("run"));
    train(common::tokengrid(), &arguments(text(&local), &first, 1));
    let weights = first.join("checkpoints/latest/model.safetensors");
    world.server.put("runs/model.safetensors", &std::fs::read(&weights).unwrap());
    let from = |path: &str, out: &Path| {
        let mut arguments = arguments(text(&local), out, 2);
        arguments.extend(["--set".to_owned(), format!("train.init_from={path}")]);
        arguments
    };
    train(common::tokengrid(), &from(text(&weights), &expected));
    let url = "s3://bucket/runs/model.safetensors";
    train(world.command(world.server.address(), "stage"), &from(url, &out));
    assert_eq!(outcome(&out), outcome(&expected));
    assert!(
        std::fs::read_to_string(out.join("config.toml")).unwrap().contains(url),
        "the run knows where they came from"
    );
    let refused = |arguments: &[String]| {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        world.fails_by(world.command(world.server.address(), "stage"), &words)
    };
    let said = refused(&from("s3://bucket/runs", &world.path("none")));
    assert!(said.contains("s3://bucket/runs") && said.contains("single file"), "{said}");
    let said = refused(&from("s3://nobucket/x.ckpt", &world.path("none")));
    assert!(said.contains("s3://nobucket/x.ckpt") && said.contains("no bucket 'nobucket'"), "{said}");
    world.server.put("runs/notes.ckpt", b"I am a text");
    let said = refused(&from("s3://bucket/runs/notes.ckpt", &world.path("none")));
    assert!(said.contains("s3://bucket/runs/notes.ckpt is not a checkpoint") && !said.contains("stage/"), "{said}");
    let (photos, tokenizer_run) = (world.path("photos"), world.path("tokenizer"));
    let tokenizer = |perceptual: &str| {
        let fixed = ["train", "tokenizer", "--data", text(&photos), "--out", text(&tokenizer_run)];
        let settings =
            ["model.preset=tiny", "train.max_steps=1", "train.image_size=32", "loss.perceptual_weight=1.0", perceptual];
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        fixed.into_iter().chain(["--device", "cpu", "--threads", "1"]).chain(set).map(str::to_owned).collect::<Vec<_>>()
    };
    let said = refused(&tokenizer("loss.perceptual=vgg16.pth, s3://bucket/runs/vgg.pth"));
    assert!(said.contains("s3://bucket/runs/vgg.pth"), "{said}");
    // It is fetched, and is not the expected file.
    let said = refused(&tokenizer(&format!("loss.perceptual={url}")));
    assert!(said.contains(url) && !said.contains("stage/"), "{said}");
    let two = "loss.perceptual=s3://bucket/runs/notes.ckpt,s3://nobucket/taps.pth";
    let said = refused(&tokenizer(two));
    assert!(said.contains("s3://nobucket/taps.pth") && said.contains("no bucket 'nobucket'"), "{said}");
    let said = refused(&[&arguments("s3://nobucket/cache", &world.path("none"), 1)[..], &[]].concat());
    assert!(said.contains("s3://nobucket/cache") && said.contains("no bucket 'nobucket'"), "{said}");
}
