//! Disks that fill up while something is written: the message, the remaining files, and how to continue.
#![cfg(all(target_os = "linux", feature = "torch"))] // tmpfs
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;
#[path = "common/namespace.rs"]
mod namespace;

use common::{fails, json, repository, text};
use namespace::{SmallDisk, files_below, small_disk};
use std::path::{Path, PathBuf};

/// Room for a few small files.
const TIGHT: &str = "40k";
const AMPLE: &str = "128m";

/// What the commands take as their input, on a disk with room.
struct Inputs {
    _folder: tempfile::TempDir,
    photos: PathBuf,
    cache: PathBuf,
    run: PathBuf,
    /// Samples of the run's model.
    samples: PathBuf,
}

const MODEL: [&str; 8] =
    ["--set", "model.preset=tiny", "--set", "model.dim=32", "--set", "model.n_head=2", "--set", "train.batch_size=2"];

impl Inputs {
    fn new() -> Inputs {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let inputs = Inputs {
            photos: common::photos(folder.path(), 3, 4),
            cache: at("cache"),
            run: at("run"),
            samples: at("samples"),
            _folder: folder,
        };
        let size = ["--tokenizer", "tiny", "--size", "32"];
        json(&[&["tokenize", text(&inputs.photos), "--out", text(&inputs.cache)][..], &size].concat());
        let train = ["train", "ar", "--cache", text(&inputs.cache), "--out", text(&inputs.run), "--device", "cpu"];
        json(&[&train[..], &MODEL, &["--set", "train.max_steps=1"]].concat());
        json(&inputs.sample(&["--out", text(&inputs.samples)]));
        inputs
    }

    /// 18 pictures of 3 KiB.
    fn sample<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = ["sample", "--checkpoint", text(&self.run), "--tokenizer", "tiny", "--num-per-class", "6"];
        [&fixed[..], more].concat()
    }
}

/// The disk is full: the message; no temporary file is left but what the next start takes over, and every picture is whole.
#[track_caller]
fn full(disk: &SmallDisk, arguments: &[&str]) {
    disk.resize(TIGHT);
    let message = fails(arguments, 1);
    let place = text(&disk.path);
    assert!(message.contains(place) && message.to_lowercase().contains("no space left"), "{message}");
    assert_eq!(message.matches("free some space and run the same command again").count(), 1, "{message}");
    for file in files_below(&disk.path) {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let is_whole = !name.ends_with(".png") || tokengrid_ingest::decode_rgb(&bytes, &Default::default()).is_ok();
        assert!(is_whole && !bytes.is_empty() || name.starts_with('.'), "{arguments:?} left {name}");
        assert!(!name.ends_with(".npz") && !name.ends_with(".safetensors"), "{arguments:?} left {name}");
    }
}

/// With room again, the same command does the rest.
#[track_caller]
fn goes_on(disk: &SmallDisk, arguments: &[&str]) -> serde_json::Value {
    disk.resize(AMPLE);
    let answer = json(arguments);
    let left = files_below(&disk.path).into_iter().find(|file| text(file).ends_with(".tmp"));
    assert_eq!(left, None, "{arguments:?}");
    disk.clear();
    answer
}

#[test]
fn what_a_full_disk_stopped_is_named_and_goes_on_with_room() {
    let Some(disk) = small_disk("what_a_full_disk_stopped_is_named_and_goes_on_with_room") else { return };
    let inputs = Inputs::new();
    let out = disk.path.join("out");
    let (out, photos) = (text(&out), text(&inputs.photos));
    let train = ["train", "ar", "--cache", text(&inputs.cache), "--out", out, "--device", "cpu"];
    let train = [&train[..], &MODEL, &["--set", "train.max_steps=2", "--set", "train.checkpoint_every=1"]].concat();
    let stage_i =
        ["train", "tokenizer", "--data", photos, "--out", out, "--device", "cpu", "--set", "model.preset=tiny"];
    let stage_i_settings =
        ["train.max_steps=1", "train.image_size=32", "train.batch_size=1", "loss.perceptual_weight=0"];
    let stage_i_settings: Vec<&str> = stage_i_settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let samples = ["--out", text(&inputs.samples)];
    for command in [
        vec!["ingest", photos, "--size", "256", "--out", out],
        train,
        [&stage_i[..], &stage_i_settings].concat(),
        inputs.sample(&["--out", out]),
        inputs.sample(&[&samples[..], &["--npz", out]].concat()),
        vec!["weights", "convert", "tiny", out],
        vec!["eval", "reconstruction", photos, "--tokenizer", "tiny", "--size", "128", "--out", out],
    ] {
        full(&disk, &command);
        goes_on(&disk, &command);
    }
    let many = repository("data/photos");
    let tokenize =
        ["tokenize", text(&many), "--tokenizer", "tiny", "--size", "64", "--out", out, "--rows-per-group", "8"];
    let class = many.join("n01616086");
    full(&disk, &tokenize);
    goes_on(&disk, &tokenize);
    // What was made of the first images is looked at, so the user says whether it is to be replaced.
    let reconstruct = ["reconstruct", text(&class), "--tokenizer", "tiny", "--size", "128", "--out", out];
    full(&disk, &reconstruct);
    goes_on(&disk, &[&reconstruct[..], &["--overwrite"]].concat());
}

#[test]
fn a_limit_on_the_size_of_files_is_told_from_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny.safetensors");
    let program = assert_cmd::cargo::cargo_bin("tokengrid");
    let script = "ulimit -f 8; exec \"$0\" weights convert tiny \"$1\" --quiet";
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", script]).arg(program).arg(&out).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(text(&out)) && said.contains("ulimit -f"), "{said}");
    assert_eq!(files_below(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_device_that_is_always_full_is_not_taken_for_a_file() {
    let full = Path::new("/dev/full");
    for command in [
        &["ingest", text(&repository("data/unseen")), "--size", "64", "--report", text(full)][..],
        &["weights", "convert", "tiny", text(full)],
    ] {
        let message = fails(command, 1);
        assert!(
            message.contains("/dev/full") && (message.contains("device") || message.contains("exists")),
            "{message}"
        );
    }
}
