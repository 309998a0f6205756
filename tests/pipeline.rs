//! The whole pipeline: images, cache, training, samples.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, sorted, text, tokengrid};
use std::path::Path;

const SIZE: &str = "32";

#[track_caller]
fn tokenize(source: &Path, out: &Path, more: &[&str]) -> serde_json::Value {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", SIZE, "--out", text(out)];
    json(&[&fixed[..], more].concat())
}

/// A model that trains in seconds.
const SMALL: [&str; 16] = [
    "--set",
    "model.preset=tiny",
    "--set",
    "model.dim=32",
    "--set",
    "model.n_head=2",
    "--set",
    "model.class_num=3",
    "--set",
    "model.block_size=16",
    "--set",
    "train.batch_size=4",
    "--set",
    "model.spatial_n_layer=2",
    "--set",
    "model.resid_dropout=0.1",
];

#[track_caller]
fn train(cache: &Path, out: &Path, more: &[&str]) -> serde_json::Value {
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(out), "--threads", "1"];
    json(&[&fixed[..], &SMALL[..], more].concat())
}

#[test]
fn images_to_cache_to_model_to_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let source = photos(dir, 3, 4);
    let cache = dir.join("cache");

    let made = tokenize(&source, &cache, &[]);
    assert_eq!((made["images"].as_u64(), made["rows"].as_u64()), (Some(12), Some(12)));
    let info = json(&["cache", "info", text(&cache)]);
    assert_eq!(info["content_hash"], made["content_hash"]);
    assert_eq!(info["grid"], serde_json::json!([4, 4]));
    assert_eq!((info["bits"].as_u64(), info["views"].as_u64()), (Some(18), Some(1)));
    json(&["cache", "verify", text(&cache)]);
    let row = json(&["cache", "show", text(&cache), "--index", "5"]);
    assert_eq!(row["label"], 1);
    assert!(row["key"].as_str().unwrap().starts_with(row["class"].as_str().unwrap()));
    assert_eq!(row["tokens"].as_array().unwrap().len(), 4);

    let run = dir.join("run");
    let trained = train(&cache, &run, &["--set", "train.max_steps=12", "--set", "data.access=preload"]);
    assert_eq!(trained["step"], 12);
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 12);
    for key in [
        "epoch",
        "lr",
        "wd",
        "train/loss",
        "train/loss_pre",
        "train/loss_post",
        "train/grad_norm",
        "tokens_per_second",
        "data_wait_fraction",
    ] {
        assert!(rows[11][key].is_number(), "{key}");
    }
    assert!(rows[11]["train/loss"].as_f64() < rows[0]["train/loss"].as_f64(), "the loss falls");

    let loss = json(&["eval", "ar", "--checkpoint", text(&run), "--cache", text(&cache)]);
    assert_eq!(loss["tokens"], 12 * 16);
    let sum = loss["loss_pre"].as_f64().unwrap() + loss["loss_post"].as_f64().unwrap();
    assert!((loss["loss"].as_f64().unwrap() - sum).abs() < 1e-9);

    let samples = dir.join("samples");
    let sampled = json(&[
        "sample",
        "--checkpoint",
        text(&run),
        "--tokenizer",
        "tiny",
        "--classes",
        "2,0",
        "--num-per-class",
        "2",
        "--cfg-scale",
        "1.5,1.2",
        "--out",
        text(&samples),
        "--tokens",
        text(&dir.join("tokens.npy")),
        "--npz",
        text(&dir.join("images.npz")),
    ]);
    assert_eq!(sampled["images"], 4);
    assert!(samples.join("images/0002/00001.png").is_file() && samples.join("grid.png").is_file());
    let npy = std::fs::read(dir.join("tokens.npy")).unwrap();
    assert!(String::from_utf8_lossy(&npy[..128]).contains("'shape': (4, 16)"));
    let plot = dir.join("loss.png");
    json(&["train", "plot", text(&run), "--out", text(&plot)]);
    assert!(std::fs::metadata(plot).unwrap().len() > 1000);
}

#[test]
fn the_cache_is_the_same_for_any_number_of_threads_and_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 3);
    let views = ["--views", "random-crop:3", "--seed", "5"];
    let hash = |name: &str, more: &[&str]| {
        let made = tokenize(&source, &folder.path().join(name), &[&views[..], more].concat());
        made["content_hash"].as_str().map(str::to_string)
    };
    let reference = hash("one", &["--batch-size", "4", "--threads", "1"]).expect("a finished cache has a hash");
    assert_eq!(hash("two", &["--batch-size", "4", "--threads", "2"]).as_ref(), Some(&reference));
    assert_eq!(hash("ranks", &["--batch-size", "4", "--rank", "1", "--world-size", "2"]), None, "rank 0 is missing");
    assert_eq!(hash("ranks", &["--batch-size", "4", "--rank", "0", "--world-size", "2"]).as_ref(), Some(&reference));
    let other = tokenize(&source, &folder.path().join("seed"), &["--views", "random-crop:3", "--seed", "6"]);
    assert_ne!(other["content_hash"].as_str(), Some(reference.as_str()), "another seed, other crops");
}

#[test]
fn running_again_changes_nothing_and_another_job_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let cache = folder.path().join("cache");
    let first = tokenize(&source, &cache, &[]);
    let before = sorted(&cache).iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let second = tokenize(&source, &cache, &[]);
    assert_eq!((second["images_now"].as_u64(), &second["content_hash"]), (Some(0), &first["content_hash"]));
    assert!(before == sorted(&cache).iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), "unchanged");
    let other = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", SIZE, "--views", "center+flip"];
    let message = fails(&[&other[..], &["--out", text(&cache)]].concat(), 1);
    assert!(message.contains("recipe") || message.contains("views"), "{message}");
}

#[test]
fn bad_images_are_set_aside_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 3);
    let class = sorted(&source).remove(0);
    std::fs::write(class.join("broken.JPEG"), b"<html>not found</html>").unwrap();
    let cache = folder.path().join("cache");
    let made = tokenize(&source, &cache, &["--quiet"]);
    assert_eq!((made["images"].as_u64(), made["quarantined"].as_u64()), (Some(6), Some(1)));
    let listed = std::fs::read_to_string(cache.join("quarantine.jsonl")).unwrap();
    assert!(listed.contains("broken.JPEG"), "{listed}");
    let strict = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", SIZE, "--on-bad", "fail", "--out"];
    let message = fails(&[&strict[..], &[text(&folder.path().join("strict"))]].concat(), 1);
    assert!(message.contains("broken.JPEG") && message.contains("decode"), "{message}");
}

#[test]
fn a_trainer_that_resumes_equals_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 3, 3);
    let cache = folder.path().join("cache");
    tokenize(&source, &cache, &["--views", "center+flip"]);
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let steps = ["--set", "train.max_steps=10", "--set", "train.checkpoint_every=4"];
    train(&cache, &whole, &steps);
    // Killed after the checkpoint of step 8: what a crash leaves is that checkpoint and a metrics file that runs ahead.
    train(&cache, &parts, &steps);
    std::fs::remove_dir_all(parts.join("checkpoints/step-00000010")).unwrap();
    let resumed = tokengrid()
        .args(["train", "ar", "--cache", text(&cache), "--out", text(&parts), "--threads", "1"])
        .args(SMALL)
        .args(steps)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("resuming at step 8 of 10"));
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-00000010").join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file} differs");
    }
    let losses = |run: &Path| -> Vec<f64> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        rows.map(|row| row["train/loss"].as_f64().unwrap()).collect()
    };
    assert_eq!(losses(&whole), losses(&parts));
}

#[test]
fn sampling_again_makes_only_what_is_missing_and_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, out) = (folder.path().join("cache"), folder.path().join("run"), folder.path().join("out"));
    tokenize(&photos(folder.path(), 3, 2), &cache, &[]);
    train(&cache, &run, &["--set", "train.max_steps=2"]);
    let arguments =
        ["sample", "--checkpoint", text(&run), "--tokenizer", "tiny", "--num-per-class", "2", "--out", text(&out)];
    assert_eq!(json(&arguments)["images_now"], 6);
    let victim = out.join("images/0001/00000.png");
    let before = std::fs::read(&victim).unwrap();
    std::fs::remove_file(&victim).unwrap();
    assert_eq!(json(&arguments)["images_now"], 1);
    assert!(before == std::fs::read(&victim).unwrap(), "the picture is the same to the bit");
    let message = fails(&[&arguments[..], &["--seed", "7"]].concat(), 1);
    assert!(message.contains("sampling settings"), "{message}");
}

#[test]
fn ingest_writes_the_pixels_that_tokenize_sees() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let out = folder.path().join("png");
    let report = json(&["ingest", text(&source), "--size", SIZE, "--views", "center+flip", "--out", text(&out)]);
    assert_eq!(
        (report["images"].as_u64(), report["ok"].as_u64(), report["views"].as_u64()),
        (Some(4), Some(4), Some(8))
    );
    // The PNGs are a source, too: the same pixels give the same tokens.
    let direct = folder.path().join("direct");
    tokenize(&source, &direct, &[]);
    let from_png = folder.path().join("from_png");
    tokenize(&out, &from_png, &[]);
    let tokens = |cache: &Path, index: &str| json(&["cache", "show", text(cache), "--index", index])["tokens"].clone();
    assert_eq!(tokens(&direct, "0"), tokens(&from_png, "0"));
    assert_eq!(tokens(&direct, "3"), tokens(&from_png, "6"));
}
