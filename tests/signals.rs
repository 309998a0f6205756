//! Signals from the start of the process on: every command ends with its exit code, and no incomplete file has its final name.
//!
//! No test measures time. A command has a minute to end, where it promises two seconds: how it keeps that promise is tested
//! beside its timer.
#![cfg(all(target_os = "linux", feature = "torch"))] // /proc
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;
#[path = "common/networks.rs"]
mod networks;
#[path = "common/stopped.rs"]
mod stopped;

use common::{json, many_photos, photos, repository, sorted, text};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stopped::{Started, program};

/// Number of images that no machine finishes before the signal.
const MANY: usize = 20_000;

/// A `.npy` file of float32 that says nothing.
fn npy(path: &Path, rows: usize, columns: usize) -> PathBuf {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8 & 0xFF) as f32;
    bytes.extend((0..rows * columns).flat_map(|i| value(i).to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
    path.to_owned()
}

/// Weights in safetensors of `gib` GiB, almost all of it a hole in the file.
fn large_weights(path: &Path, gib: u64) -> PathBuf {
    let bytes = gib << 30;
    let header = format!(
        "{{\"encoder.conv_in.weight\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{bytes}]}}}}",
        bytes / 4
    );
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(path, &start).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(start.len() as u64 + bytes).unwrap();
    path.to_owned()
}

/// A cache of many small grids, three classes.
fn cache(folder: &Path) -> PathBuf {
    let out = folder.join("cache");
    let source = photos(folder, 3, 2);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)]);
    out
}

/// Arguments of a training run that does not end during the test.
fn endless_run<'a>(cache: &'a Path, run: &'a Path, steps: &'a str) -> Vec<&'a str> {
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(run), "--threads", "1", "--device", "cpu"];
    let settings = ["model.preset=tiny", "model.dim=32", "model.n_head=2", "model.spatial_n_layer=2"];
    let settings = [&settings[..], &["train.batch_size=2", "train.checkpoint_every=1", steps]].concat();
    [&fixed[..], &settings.into_iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>()].concat()
}

/// Names below a folder that are not temporary ones.
fn names(folder: &Path) -> Vec<String> {
    if !folder.exists() {
        return vec![];
    }
    let names = sorted(folder).into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn commands_that_keep_no_work_end_with_the_code_of_their_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (cache(folder.path()), folder.path().join("out"));
    let many = many_photos(folder.path(), MANY);
    let (a, b) = (npy(&folder.path().join("a.npy"), 64, 4096), npy(&folder.path().join("b.npy"), 64, 4096));
    let weights = large_weights(&folder.path().join("large.safetensors"), 256);
    // Nobody writes to it.
    let fifo = folder.path().join("fifo.npy");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (many, cache, weights) = (text(&many), text(&cache), text(&weights));
    let shape = ["model.preset=tiny", "model.dim=64", "model.n_head=4"].map(|setting| ["--set", setting]);
    let shape: Vec<&str> = shape.iter().flatten().copied().collect();
    let bench = |stage: &'static str, more: &[&'static str]| -> Vec<&str> {
        [&["bench", stage, "--device", "cpu", "--threads", "1"][..], more].concat()
    };
    let commands: [Vec<&str>; 12] = [
        vec!["eval", "reconstruction", many, "--tokenizer", "tiny", "--threads", "1", "--out", text(&out)],
        vec!["eval", "features", text(&a), text(&b), "--threads", "1"],
        vec!["weights", "info", weights],
        vec!["weights", "convert", weights, text(&out)],
        vec!["ingest", many, "--size", "64", "--threads", "1", "--report", text(&out)],
        vec![
            "tokenize",
            many,
            "--tokenizer",
            "tiny",
            "--size",
            "32",
            "--dry-run",
            "--threads",
            "1",
            "--out",
            text(&out),
        ],
        vec!["bench", "loader", cache, "--samples", "2000000000"],
        vec!["bench", "loader", cache, "--samples", "2000000000"],
        vec!["cache", "import", "--tokens", text(&fifo), "--grid", "16x16", "--out", text(&out)],
        bench("encode", &["--tokenizer", "tiny", "--size", "1024", "--rounds", "1000"]),
        [bench("sample", &["--rounds", "1000"]), shape.clone()].concat(),
        [bench("train", &["--steps", "10000"]), shape.clone(), vec!["--cache", cache]].concat(),
    ];
    for (number, command) in commands.iter().enumerate() {
        let (signal, code) = if number % 2 == 0 { (libc::SIGINT, 130) } else { (libc::SIGTERM, 143) };
        let (status, said) = Started::listening(command).stop(signal);
        assert_eq!(status.code(), Some(code), "{command:?}: {said}");
        // A command that looks at once has ended before it is said to be stopping.
        assert!(said.contains("tokengrid: stopped"), "{command:?}: {said}");
        assert!(!out.exists(), "{command:?} wrote {}", out.display());
    }
}

#[test]
fn an_evaluation_of_samples_or_of_a_model_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, stats) = (cache(folder.path()), folder.path().join("run"), folder.path().join("stats.npz"));
    json(&endless_run(&cache, &run, "train.max_steps=1"));
    let many = many_photos(folder.path(), MANY);
    let inception = networks::inception(folder.path());
    let (many, inception) = (text(&many), text(&inception));
    let samples =
        ["eval", "samples", many, many, "--inception", inception, "--threads", "1", "--save-stats", text(&stats)];
    let (status, said) = Started::listening(&samples).stop(libc::SIGINT);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(!stats.exists());
    // A grid of 16 tokens is soon done: the signal comes before the first one.
    let ar = ["eval", "ar", "--checkpoint", text(&run), "--cache", text(&cache), "--device", "cpu"];
    let (status, said) = stopped::pending(&ar, libc::SIGTERM);
    assert_eq!(status.code(), Some(143), "{said}");
}

#[test]
fn images_that_are_done_stay_and_the_next_start_makes_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (many_photos(folder.path(), 60), folder.path().join("out"));
    let fixed = ["ingest", text(&source), "--size", "64", "--threads", "1", "--out", text(&out)];
    let started = Started::until(&fixed, || out.join("n00000000").exists());
    let (status, said) = started.stop(libc::SIGINT);
    assert!(matches!(status.code(), Some(0 | 130)), "{status}: {said}");
    let done = json(&fixed);
    assert_eq!(done["ok"], 60, "{done}");
    let files: Vec<_> = sorted(&out).iter().filter(|path| path.is_dir()).flat_map(|class| sorted(class)).collect();
    assert_eq!(files.len(), 60, "every image once, and no temporary file: {files:?}");
    assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "png")), "{files:?}");
}

#[test]
fn reconstructions_that_are_done_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (many_photos(folder.path(), 200), folder.path().join("out"));
    let class = sorted(&source)[0].clone();
    let fixed =
        ["reconstruct", text(&class), "--tokenizer", "tiny", "--size", "64", "--threads", "1", "--out", text(&out)];
    let (status, said) = Started::until(&fixed, || !names(&out).is_empty()).stop(libc::SIGTERM);
    assert!(matches!(status.code(), Some(0 | 143)), "{status}: {said}");
    for name in names(&out) {
        let bytes = std::fs::read(out.join(&name)).unwrap();
        assert!(tokengrid_ingest::decode_rgb(&bytes, &Default::default()).is_ok(), "{name} is whole");
    }
}

#[test]
fn a_stopped_job_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let source = many_photos(folder.path(), 100);
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let tokenize = |out: &Path| -> Vec<String> {
        let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(out)];
        let more = ["--rows-per-group", "4", "--batch-size", "2", "--threads", "1"];
        [&fixed[..], &more].concat().into_iter().map(str::to_owned).collect()
    };
    let run = |arguments: &[String]| json(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    run(&tokenize(&whole));
    let arguments = tokenize(&cut);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (status, said) = Started::until(&arguments, || !names(&cut).is_empty()).stop(libc::SIGTERM);
    assert!(matches!(status.code(), Some(0 | 143)), "{status}: {said}");
    json(&arguments);
    let hash = |cache: &Path| json(&["cache", "verify", text(cache)])["content_hash"].clone();
    assert_eq!(hash(&cut), hash(&whole));
}

#[test]
fn a_stopped_run_keeps_a_checkpoint_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, photos) = (cache(folder.path()), folder.path().join("run"), folder.path().join("stage1"));
    let source = repository("data/photos");
    let tokenizer = ["train", "tokenizer", "--data", text(&source), "--out", text(&photos), "--device", "cpu", "--set"];
    let tokenizer = |steps: &'static str| {
        let settings = ["train.image_size=32", "train.batch_size=1", "train.checkpoint_every=1", steps];
        let small = ["model.preset=tiny", "loss.perceptual_weight=0"];
        let settings: Vec<&str> = settings.into_iter().chain(small).flat_map(|setting| [setting, "--set"]).collect();
        [&tokenizer[..], &settings[..settings.len() - 1]].concat()
    };
    for (out, endless, next) in [
        (&run, endless_run(&cache, &run, "train.max_steps=1000000"), endless_run(&cache, &run, "train.max_steps=1")),
        (&photos, tokenizer("train.max_steps=1000000"), tokenizer("train.max_steps=1")),
    ] {
        let latest = out.join("checkpoints/latest");
        let (status, said) = Started::until(&endless, || latest.exists()).stop(libc::SIGINT);
        assert_eq!(status.code(), Some(130), "{said}");
        let step = json(&next)["step"].as_u64().unwrap();
        assert!(step >= 1, "the run had got to a step");
        let published = std::fs::read_link(&latest).unwrap();
        assert_eq!(published, Path::new(&format!("step-{step:08}")), "nothing was lost, and nothing trained anew");
    }
}

#[test]
fn images_of_a_stopped_sampler_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, out) = (cache(folder.path()), folder.path().join("run"), folder.path().join("out"));
    json(&endless_run(&cache, &run, "train.max_steps=1"));
    let sample = |per_class: &'static str| {
        let fixed =
            ["sample", "--checkpoint", text(&run), "--tokenizer", "tiny", "--threads", "1", "--batch-size", "1"];
        [&fixed[..], &["--out", text(&out), "--num-per-class", per_class]].concat()
    };
    let first = out.join("images/0000/00000.png");
    let (status, said) = Started::until(&sample("100000"), || first.exists()).stop(libc::SIGTERM);
    assert_eq!(status.code(), Some(143), "{said}");
    let made = names(&out.join("images/0000")).len();
    let again = json(&sample("1"));
    assert_eq!((again["images_now"].as_u64().unwrap() < 3, made > 0), (true, true), "{again}");
    assert_eq!(names(&out.join("images/0000")).len(), made);
}

/// Who becomes the program with libtorch holds signals back until that one listens.
#[test]
fn signals_are_held_while_one_program_becomes_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tokengrid");
    std::fs::copy(assert_cmd::cargo::cargo_bin("tokengrid"), &program).unwrap();
    let other = folder.path().join("tokengrid-torch");
    std::fs::write(&other, "#!/bin/sh\nexec grep SigBlk /proc/self/status\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program).args(["weights", "info", "tiny"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let blocked = u64::from_str_radix(said.trim_start_matches("SigBlk:").trim(), 16).unwrap();
    let [interrupt, terminate] = [libc::SIGINT, libc::SIGTERM].map(|signal| 1 << (signal - 1));
    assert_eq!(blocked & (interrupt | terminate), interrupt | terminate, "{said}");
}

#[test]
fn a_signal_before_the_first_instruction_ends_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (photos(folder.path(), 1, 1), folder.path().join("out"));
    let gone = folder.path().join("gone");
    for command in [
        &["ingest", text(&source), "--out", text(&out)][..],
        &["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)],
        &["weights", "convert", "tiny", text(&out)],
        &["cache", "info", text(&gone)],
        &["view", text(&gone)],
        &["--help"],
    ] {
        for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
            let (status, said) = stopped::pending(command, signal);
            assert_eq!(status.code(), Some(code), "{command:?}: {said}");
            assert!(said.contains("tokengrid: stopped") && said.lines().count() <= 2, "{said}");
            assert!(!out.exists(), "{command:?}");
        }
    }
}

#[test]
fn a_second_signal_ends_what_would_have_been_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let arguments = endless_run(&cache, &run, "train.max_steps=1000000");
    let mut command = program();
    command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
    // Both signals at once: whichever thread is first, one of them is the second.
    // SAFETY: nothing but signals are dealt with between the two programs.
    unsafe { command.pre_exec(stopped::hold_and_raise_both) };
    let status = stopped::wait(command.spawn().unwrap());
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
}
