//! The folder of a training run: its files, kills, locks, divergence, and where the next start continues.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/training.rs"]
mod training;

use common::{fails, json, sorted, text, tokengrid};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use training::{arguments, cache, made_up_cache, names, printed, rows, strs};

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
    // Three classes of four images of 32 pixels, with gaps of 4.
    assert_eq!((&png[16..20], &png[20..24]), (&140u32.to_be_bytes()[..], &104u32.to_be_bytes()[..]));
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000004", "step-00000006"]);
    let events: Vec<_> = sorted(&run).into_iter().filter(|path| text(path).contains("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1);
    let bytes = std::fs::read(&events[0]).unwrap();
    let count = |tag: &[u8]| bytes.windows(tag.len()).filter(|window| *window == tag).count();
    assert_eq!((count(b"train/grad_norm"), count(b"data_wait_fraction"), count(b"\x89PNG")), (6, 6, 2));

    // Pictures must not affect the training.
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

/// Rows without values that depend on the machine's load.
fn untimed(run: &Path) -> Vec<serde_json::Value> {
    let mut rows = rows(run);
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        assert!(row.remove("tokens_per_second").is_some() && row.remove("data_wait_fraction").is_some());
    }
    rows
}

#[test]
fn a_hundred_steps_with_kills_at_random_moments_equal_a_hundred_without() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, whole, killed) = (cache(folder.path()), folder.path().join("whole"), folder.path().join("killed"));
    let settings = ["max_steps=100", "checkpoint_every=1", "grad_accum=2", "batch_size=4"];
    json(&strs(&arguments(&cache, &whole, &settings)));
    let arguments = arguments(&cache, &killed, &settings);
    let latest = killed.join("checkpoints/latest");
    for (kill, step) in [9u64, 27, 50, 68, 83].into_iter().enumerate() {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"))
            .args(&arguments)
            .args(["--quiet"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Much of such a step is writing its checkpoint.
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
    // What a kill in the midst of a checkpoint leaves: half of it, under a name that is not yet its own.
    let half = killed.join("checkpoints/.step-00000095.tmp");
    std::fs::create_dir(&half).unwrap();
    let model = std::fs::read(latest.join("model.safetensors")).unwrap();
    std::fs::write(half.join("model.safetensors"), &model[..model.len() / 2]).unwrap();
    json(&["eval", "ar", "--checkpoint", text(&killed), "--cache", text(&cache), "--device", "cpu"]);
    assert_eq!(json(&strs(&arguments))["step"], 100);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-00000100").join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file} differs");
    }
    let (of_whole, of_killed) = (untimed(&whole), untimed(&killed));
    assert_eq!(of_whole.len(), 100);
    assert!(of_whole == of_killed, "every step once, with the same numbers");
    assert_eq!(names(&killed.join("checkpoints")), ["latest", "step-00000099", "step-00000100"]);
    assert_eq!(names(&killed).iter().filter(|name| name.starts_with("events")).count(), 6, "a file for each start");
}

/// Checkpoints that are being written in a run's folder: their names and inodes, which tell one try from the next.
fn unpublished(run: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let hidden = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".step-"));
    hidden.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.ino()))).collect()
}

/// Steps that were validated, by the lines that are whole.
fn validated(run: &Path) -> usize {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains("val/loss") && line.ends_with('}')).count()
}

/// Starts a run and kills it at the given moment: while it writes the n-th checkpoint from now, or when it has validated n times
/// more. Whether a checkpoint was cut short; `None` if the run came to its end first.
fn killed_at(arguments: &[String], run: &Path, saving: bool, n: usize) -> Option<bool> {
    let mut seen: Vec<u64> = unpublished(run).into_iter().map(|(_, inode)| inode).collect();
    let (known, before) = (seen.len(), validated(run));
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let cut = loop {
        assert!(started.elapsed() < Duration::from_secs(300), "the run neither ends nor saves");
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return None;
        }
        let new: Vec<_> = unpublished(run).into_iter().filter(|(_, inode)| !seen.contains(inode)).collect();
        seen.extend(new.iter().map(|(_, inode)| inode));
        if (saving && !new.is_empty() && seen.len() >= known + n) || (!saving && validated(run) >= before + n) {
            break new;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    Some(cut.iter().any(|cut| unpublished(run).contains(cut)))
}

#[test]
fn a_run_killed_while_it_saves_or_validates_has_the_best_checkpoint_of_an_unbroken_one() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, whole, killed) = (cache(folder.path()), folder.path().join("whole"), folder.path().join("killed"));
    // A learning rate at which the loss goes up and down.
    let rate = ["peak_lr=0.2", "warmup_steps=0", "wpe=1.0", "batch_size=4", "max_steps=40"];
    let saved = ["val_every=2", "checkpoint_every=3", "keep_last=1", "save_best=val_loss"];
    let arguments = |run: &Path| {
        let settings: Vec<&str> = rate.into_iter().chain(saved).collect();
        [arguments(&cache, run, &settings), vec!["--val-cache".into(), text(&cache).into()]].concat()
    };
    json(&strs(&arguments(&whole)));
    let state = |run: &Path, of: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(run.join("checkpoints").join(of).join("state.json")).unwrap()).unwrap()
    };
    let best = state(&whole, "latest")["best"].clone();
    assert!(best["step"].as_u64().unwrap() < 40, "the best is not the last: {best}");
    let mut cut_short = 0;
    // Kills before the first checkpoint too, and at every third at the latest: the run goes on.
    for kill in 0.. {
        let (saving, n) = (kill % 3 != 2, 1 + kill % 4);
        let Some(cut) = killed_at(&arguments(&killed), &killed, saving, n) else { break };
        cut_short += usize::from(cut);
        assert!(kill < 100, "the run does not get on");
    }
    assert!(cut_short > 0, "no kill came while a checkpoint was written");
    assert_eq!(state(&killed, "latest")["best"], best);
    let link = |run: &Path, name: &str| std::fs::read_link(run.join("checkpoints").join(name)).unwrap();
    for name in ["best", "latest"] {
        assert_eq!(link(&whole, name), link(&killed, name), "{name}");
        for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
            let read = |run: &Path| std::fs::read(run.join("checkpoints").join(name).join(file)).unwrap();
            assert!(read(&whole) == read(&killed), "{name}: {file} differs");
        }
    }
    assert_eq!(names(&whole.join("checkpoints")), names(&killed.join("checkpoints")));
    assert!(untimed(&whole) == untimed(&killed), "every step once, with the same numbers");
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
    assert!(message.contains("not finite at step 3"), "{message}");
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

#[test]
fn a_run_that_diverges_before_its_first_checkpoint_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    // The second step ruins the weights; only its checkpoint, the first, looks at them.
    let ruinous = ["max_steps=2", "batch_size=2", "peak_lr=1e39", "wp0=0.0", "warmup_steps=1", "log_every=50"];
    let message = fails(&strs(&arguments(&cache, &run, &ruinous)), 1);
    assert!(message.contains("weights") && message.contains("are not finite at step 2"), "{message}");
    assert!(message.contains("no checkpoint yet") && !message.contains("intact"), "{message}");
}

#[test]
fn a_checkpoint_counts_with_all_that_going_on_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let of = |steps: &str| {
        let settings = [&format!("max_steps={steps}")[..], "batch_size=2", "checkpoint_every=2", "warmup_steps=1"];
        arguments(&cache, &run, &settings)
    };
    json(&strs(&of("4")));
    let optimizer = run.join("checkpoints/step-00000004/optimizer.safetensors");
    let whole = std::fs::read(&optimizer).unwrap();
    for damage in [None, Some(&whole[..whole.len() / 2]), Some(b"")] {
        match damage {
            None => std::fs::remove_file(&optimizer).unwrap(),
            Some(bytes) => std::fs::write(&optimizer, bytes).unwrap(),
        }
        let output = tokengrid().args(of("4")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("step-00000004 is damaged") && stderr.contains("step 2"), "{stderr}");
        assert!(std::fs::read(&optimizer).unwrap() == whole, "trained again");
    }
    // With links followed, `latest` is a folder.
    let latest = run.join("checkpoints/latest");
    std::fs::remove_file(&latest).unwrap();
    std::fs::create_dir(&latest).unwrap();
    for file in sorted(&run.join("checkpoints/step-00000004")) {
        std::fs::copy(&file, latest.join(file.file_name().unwrap())).unwrap();
    }
    json(&strs(&of("6")));
    assert_eq!(std::fs::read_link(&latest).unwrap(), Path::new("step-00000006"));
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000004", "step-00000006"]);
}

#[test]
fn of_several_starts_on_one_folder_one_runs_and_the_others_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 12, 4, 18, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=40", "checkpoint_every=10", "batch_size=4"]);
    let start = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
        command.args(&arguments).arg("--quiet").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let starts: Vec<_> = (0..4).map(|_| start()).collect();
    let mut refused = 0;
    for child in starts {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                assert!(said.contains("is in use: process ") && said.contains("--out"), "{said}");
                refused += 1;
            }
            other => panic!("{other:?}: {said}"),
        }
    }
    assert!(refused < 4, "one of them trains");
    json(&strs(&arguments));
    let steps: Vec<u64> = rows(&run).iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=40).collect::<Vec<_>>(), "each step once");
    assert!(!run.join(".lock").exists());
}

#[test]
fn only_what_a_run_has_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=2", "batch_size=2", "checkpoint_every=1"]);
    let overwriting = [&strs(&arguments)[..], &["--overwrite"]].concat();
    // Another program's folder, whatever its names are.
    std::fs::create_dir_all(run.join("checkpoints/step-00000001")).unwrap();
    std::fs::create_dir_all(run.join("samples")).unwrap();
    let foreign = ["config.toml", "metrics.jsonl", "checkpoints/step-00000001/state.json", "samples/step-00000001.png"];
    for name in foreign {
        std::fs::write(run.join(name), "[server]\nport = 1\n").unwrap();
    }
    let message = fails(&overwriting, 1);
    assert!(message.contains("holds no run") && message.contains("config.toml"), "{message}");
    assert!(foreign.iter().all(|name| run.join(name).is_file()) && !run.join(".lock").exists());
    std::fs::remove_dir_all(&run).unwrap();
    // A run with a user's notes in it.
    json(&strs(&arguments));
    let notes = ["notes.txt", "checkpoints/notes.txt", "samples/notes.txt"];
    std::fs::create_dir_all(run.join("samples")).unwrap();
    for name in notes {
        std::fs::write(run.join(name), "mine").unwrap();
    }
    std::fs::write(run.join("events.out.tfevents.1700000000.elsewhere"), "mine").unwrap();
    std::fs::write(run.join("checkpoints/step-00000001/notes.txt"), "mine").unwrap();
    json(&overwriting);
    assert!(run.join("checkpoints/step-00000001.others-1/notes.txt").is_file(), "under another name");
    assert!(notes.iter().all(|name| run.join(name).is_file()));
    assert!(run.join("events.out.tfevents.1700000000.elsewhere").is_file());
    assert_eq!(rows(&run).len(), 2);
}

#[test]
fn a_start_that_was_killed_early_blocks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1", "batch_size=2"]);
    // As versions left it that made the folder of checkpoints first, and as a file system does.
    for name in ["checkpoints", "lost+found"] {
        std::fs::create_dir_all(run.join(name)).unwrap();
    }
    for name in ["config.toml.tmp", "config.tmp", ".lock", ".DS_Store", ".nfs0001"] {
        std::fs::write(run.join(name), "").unwrap();
    }
    json(&strs(&arguments));
    let left = names(&run);
    assert!(!left.iter().any(|name| name.ends_with(".tmp") || name == ".lock"), "{left:?}");
    std::fs::create_dir(run.join("samples")).unwrap();
    for name in ["metrics.jsonl.tmp", "samples/step-00000001.png.tmp", "checkpoints/.latest.tmp"] {
        std::fs::write(run.join(name), "half").unwrap();
    }
    json(&strs(&arguments));
    assert!(names(&run.join("samples")).is_empty() && !run.join("metrics.jsonl.tmp").exists());
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000001"]);
}

#[test]
fn the_newest_checkpoint_decides_whatever_the_link_says() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let arguments =
        arguments(&cache, &run, &["max_steps=4", "batch_size=2", "checkpoint_every=2", "peak_lr=1e-2", "wp0=1.0"]);
    json(&strs(&arguments));
    let latest = run.join("checkpoints/latest");
    let evaluated = |checkpoint: &Path| {
        json(&["eval", "ar", "--checkpoint", text(checkpoint), "--cache", text(&cache), "--device", "cpu"])["loss"]
            .clone()
    };
    let newest = evaluated(&run.join("checkpoints/step-00000004"));
    assert_ne!(newest, evaluated(&run.join("checkpoints/step-00000002")));
    // What a kill leaves between a checkpoint and its link.
    std::fs::remove_file(&latest).unwrap();
    std::os::unix::fs::symlink("step-00000002", &latest).unwrap();
    for checkpoint in [&run, &run.join("checkpoints"), &latest] {
        assert_eq!(evaluated(checkpoint), newest, "{}", checkpoint.display());
    }
    json(&strs(&arguments));
    assert_eq!(std::fs::read_link(&latest).unwrap(), Path::new("step-00000004"), "the next start mends it");
}

#[test]
fn a_run_of_another_length_says_that_its_schedule_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let with = |steps: &str| {
        let arguments = arguments(&cache, &run, &[steps, "batch_size=2"]);
        printed(&strs(&arguments)).1
    };
    with("max_steps=2");
    let said = with("max_steps=4");
    assert!(said.contains("now ends at step 4 instead of 2") && said.contains("resuming at step 2 of 4"), "{said}");
    assert!(!with("max_steps=4").contains("instead of"), "it is as it was");
}
