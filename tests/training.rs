//! What every training run has, as a user meets it: configurations, event files, pictures, kills, divergence.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, repository, sorted, text, tokengrid};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn cache(folder: &Path) -> PathBuf {
    let out = folder.join("cache");
    let source = photos(folder, 3, 2);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "64", "--out", text(&out)]);
    out
}

/// A model that trains in seconds, and what differs from it.
fn arguments(cache: &Path, out: &Path, settings: &[&str]) -> Vec<String> {
    let model = ["preset=tiny", "dim=32", "n_head=2", "class_num=3", "block_size=16", "spatial_n_layer=2"];
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(out), "--threads", "1", "--device", "cpu"];
    let settings = model.iter().map(|key| format!("model.{key}")).chain(settings.iter().map(|s| format!("train.{s}")));
    let settings = settings.flat_map(|setting| ["--set".to_string(), setting]);
    fixed.iter().map(|s| s.to_string()).chain(settings).collect()
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn names(folder: &Path) -> Vec<String> {
    sorted(folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn rows(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn printed(arguments: &[&str]) -> (String, String) {
    let output = tokengrid().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn presets_are_printed_as_configurations_that_can_be_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (printed_b, _) = printed(&["train", "ar", "--print-config", "B", "--set", "train.batch_size=5"]);
    for line in ["dim = 1024", "spatial_n_layer = 24", "batch_size = 5", "epochs = 300", "keep_last = 2"] {
        assert!(printed_b.lines().any(|printed| printed.starts_with(line)), "{line}: {printed_b}");
    }
    let file = folder.path().join("b.toml");
    std::fs::write(&file, &printed_b).unwrap();
    assert_eq!(printed(&["train", "ar", "--config", text(&file), "--print-config"]).0, printed_b);
    let (tiny, _) = printed(&["train", "tokenizer", "--print-config", "tiny"]);
    assert!(tiny.contains("[loss]") && tiny.contains("z_channels = 18"), "{tiny}");
    assert_eq!(json(&["train", "ar", "--print-config", "XL"])["model"]["dim"], 1536);
    let message = fails(&["train", "ar", "--print-config", "M"], 2);
    assert!(message.contains("unknown preset `M`; there are `B`"), "{message}");
}

#[test]
fn a_yaml_file_of_the_reference_is_converted_and_says_what_it_leaves_out() {
    let yaml = repository("train/tests/fixtures/reference_ar.yaml");
    let (config, notes) = printed(&["train", "ar", "--config", text(&yaml), "--print-config"]);
    assert!(config.contains("dim = 128") && config.contains("warmup_epochs = 3"), "{config}");
    assert!(notes.contains("reference_ar.yaml, not honoured: trainer.devices = 4: "), "{notes}");
    let message = fails(&["train", "tokenizer", "--config", text(&yaml)], 2);
    assert!(message.contains("use `train ar`"), "{message}");
}

#[test]
fn a_run_has_event_files_and_pictures_of_the_weights_of_the_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let settings = ["max_steps=6", "sample_every=4", "checkpoint_every=2", "keep_last=1", "keep_every=4"];
    let arguments = arguments(&cache, &run, &settings);
    let message = fails(&strs(&arguments), 2);
    assert!(message.contains("--tokenizer"), "{message}");
    let with_tokenizer = [&strs(&arguments)[..], &["--tokenizer", "tiny"]].concat();
    let trained = json(&with_tokenizer);
    assert_eq!(names(&run.join("samples")), ["step-00000004.png", "step-00000006.png"]);
    let png = std::fs::read(run.join("samples/step-00000004.png")).unwrap();
    // Three classes of four images of 64 pixels, with gaps of 4.
    assert_eq!((&png[16..20], &png[20..24]), (&268u32.to_be_bytes()[..], &200u32.to_be_bytes()[..]));
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000004", "step-00000006"]);
    let events: Vec<_> = sorted(&run).into_iter().filter(|path| text(path).contains("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1);
    let bytes = std::fs::read(&events[0]).unwrap();
    let count = |tag: &[u8]| bytes.windows(tag.len()).filter(|window| *window == tag).count();
    assert_eq!((count(b"train/grad_norm"), count(b"data_wait_fraction"), count(b"\x89PNG")), (6, 6, 2));

    // Pictures are looked at; they must not change what is trained.
    let plain = folder.path().join("plain");
    let settings = ["max_steps=6", "checkpoint_every=6"];
    json(&strs(&self::arguments(&cache, &plain, &settings)));
    let model = |run: &Path| std::fs::read(run.join("checkpoints/latest/model.safetensors")).unwrap();
    assert!(model(&run) == model(&plain), "the same weights with and without pictures");
    assert!(trained["loss"].is_number());

    // Starting anew takes along what belonged to the old run.
    json(&[&with_tokenizer[..], &["--overwrite", "--set", "train.sample_every=0"]].concat());
    let left = names(&run);
    assert_eq!(left.iter().filter(|name| name.starts_with("events")).count(), 1, "{left:?}");
    assert!(!run.join("samples").exists());
}

#[test]
fn kills_in_the_midst_of_checkpoints_leave_one_that_loads_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, whole, killed) = (cache(folder.path()), folder.path().join("whole"), folder.path().join("killed"));
    let settings = ["max_steps=40", "checkpoint_every=1"];
    json(&strs(&arguments(&cache, &whole, &settings)));
    let arguments = arguments(&cache, &killed, &settings);
    let latest = killed.join("checkpoints/latest");
    for (kill, step) in [5u64, 11, 18, 26, 33].into_iter().enumerate() {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"))
            .args(&arguments)
            .args(["--quiet"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Nearly all of such a step is writing its checkpoint.
        let started = Instant::now();
        let reached = |name: PathBuf| name.to_str().and_then(|n| n.strip_prefix("step-")?.parse::<u64>().ok());
        while std::fs::read_link(&latest).ok().and_then(reached).is_none_or(|now| now < step) {
            assert!(started.elapsed() < Duration::from_secs(120), "step {step} was never reached");
            assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(kill as u64 * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        json(&["eval", "ar", "--checkpoint", text(&killed), "--cache", text(&cache), "--device", "cpu"]);
    }
    assert_eq!(json(&strs(&arguments))["step"], 40);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-00000040").join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file} differs");
    }
    let losses = |run: &Path| rows(run).iter().map(|row| row["train/loss"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(losses(&whole), losses(&killed), "every step once, with the same loss");
    assert_eq!(names(&killed).iter().filter(|name| name.starts_with("events")).count(), 6, "a file for each start");
}

#[test]
fn a_run_that_diverges_stops_and_keeps_what_was_good() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    // The first step has a learning rate of 0, the second ruins the weights, the third sees it. No step but the last is
    // logged: the checkpoint notices.
    let ruinous = ["max_steps=50", "peak_lr=1e36", "wp0=0.0", "warmup_steps=20", "checkpoint_every=1", "log_every=50"];
    let arguments = arguments(&cache, &run, &ruinous);
    let message = fails(&strs(&arguments), 1);
    assert!(message.contains("no longer numbers at step 3"), "{message}");
    assert!(message.contains("step-00000002") && message.contains("learning rate"), "{message}");
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000001", "step-00000002"]);
    let good = run.join("checkpoints/step-00000001");
    let loss = json(&["eval", "ar", "--checkpoint", text(&good), "--cache", text(&cache), "--device", "cpu"]);
    assert!(loss["loss"].as_f64().unwrap().is_finite());
    let logged = [&strs(&arguments)[..], &["--overwrite", "--set", "train.log_every=1"]].concat();
    fails(&logged, 1);
    let rows = rows(&run);
    assert_eq!(rows.len(), 3, "the row of the step that failed is there, too");
    assert!(rows[1]["train/grad_norm"].is_number() && rows[2]["train/grad_norm"].is_null(), "{rows:?}");
}
