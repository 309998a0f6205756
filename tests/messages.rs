//! Error messages: one clear line, the right exit code, no incomplete files.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{fails, text, tokengrid};
use predicates::str::contains;

#[test]
fn help_of_every_command_is_there_and_wrong_flags_exit_with_2() {
    tokengrid().arg("--help").assert().success().stdout(contains("token grids")).stdout(contains("Commands:"));
    tokengrid().arg("--version").assert().success().stdout(contains("libtorch"));
    let mut commands =
        vec![vec!["ingest"], vec!["cache"], vec!["cache", "info"], vec!["cache", "verify"], vec!["cache", "show"]];
    if cfg!(feature = "torch") {
        commands.extend([vec!["tokenize"], vec!["reconstruct"], vec!["weights", "info"], vec!["weights", "convert"]]);
        commands.extend([vec!["train", "ar"], vec!["train", "tokenizer"], vec!["sample"], vec!["eval", "ar"]]);
    }
    for command in commands {
        tokengrid().args(&command).arg("--help").assert().success().stdout(contains("Usage: tokengrid"));
        let message = fails(&[&command[..], &["--no-such-flag"]].concat(), 2);
        assert!(message.contains("--no-such-flag"), "{message}");
    }
}

#[test]
fn variables_with_a_fixed_set_of_values_take_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, value: &str| {
        let output = tokengrid().args(["cache", "info", text(folder.path())]).env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    for (name, value, expected) in [
        ("TOKENGRID_ROUTE", "bogus", "TOKENGRID_ROUTE=bogus: expected host or device"),
        ("TOKENGRID_BACKEND", "NCCL", "TOKENGRID_BACKEND=NCCL: expected nccl or gloo"),
        ("TOKENGRID_LOG", "tokengrid=loud", "TOKENGRID_LOG=tokengrid=loud: "),
    ] {
        let (code, said) = run(name, value);
        assert!(code == Some(2) && said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    for (name, value) in [
        ("TOKENGRID_ROUTE", "device"),
        ("TOKENGRID_BACKEND", "gloo"),
        ("TOKENGRID_ROUTE", ""),
        ("TOKENGRID_LOG", "info"),
    ] {
        let (code, said) = run(name, value);
        assert!(code == Some(1) && said.contains("manifest.json"), "{name}={value}: {said}");
    }
}

#[test]
fn a_source_that_is_not_there_or_empty() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let message = fails(&["ingest", text(&missing)], 1);
    assert!(message.contains("nowhere"), "{message}");
    fails(&["ingest", text(folder.path())], 1);
    let message = fails(&["ingest", text(folder.path()), "--views", "middle"], 2);
    assert!(message.contains("middle") && message.contains("center"), "{message}");
}

#[test]
fn a_folder_that_is_no_cache() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["info", "verify", "show"] {
        let message = fails(&["cache", command, text(folder.path())], 1);
        assert!(message.contains("manifest.json"), "{message}");
    }
    let message = fails(&["cache", "info", text(&folder.path().join("gone"))], 1);
    assert!(message.contains("gone"), "{message}");
}

#[cfg(feature = "torch")]
mod with_torch {
    use super::*;
    use common::{json, photos, repository, sorted};
    use std::path::Path;
    use tokengrid_test_support::golden;

    fn tokenize(tokenizer: &Path, out: &Path, code: i32) -> String {
        let photos = repository("data/photos");
        let fixed = ["tokenize", text(&photos), "--limit", "2", "--tokenizer", text(tokenizer), "--out", text(out)];
        fails(&fixed, code)
    }

    #[test]
    fn files_that_are_no_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("cache");
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let whole = std::fs::read(golden("tok_f4.ckpt")).unwrap();
        let cases = [
            (write("text.ckpt", b"I am a text\n"), "text that starts with `I am a text`"),
            (write("empty.ckpt", b""), "empty"),
            (write("cut.ckpt", &whole[..whole.len() / 2]), "damaged or incomplete"),
            (
                write("cut.safetensors", &std::fs::read(golden("tok_f4.safetensors")).unwrap()[..4096]),
                "damaged or incomplete",
            ),
            (folder.path().join("gone.ckpt"), "gone.ckpt"),
            (golden("ar_train.safetensors"), "no part of the model accounts for"),
            (folder.path().to_path_buf(), "folder"),
        ];
        for (path, expected) in &cases {
            let message = tokenize(path, &out, 1);
            assert!(message.contains(expected), "{}: {message}", path.display());
            assert!(!out.exists(), "{}: nothing is written before the weights are read", path.display());
        }
    }

    #[test]
    fn a_source_without_a_single_good_image_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("photos");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("a.jpg"), b"<html>").unwrap();
        let out = folder.path().join("cache");
        let message = fails(&["tokenize", text(&source), "--tokenizer", "tiny", "--out", text(&out)], 1);
        assert!(message.contains("none of the 1 inputs"), "{message}");
    }

    #[test]
    fn settings_out_of_range_exit_with_2() {
        let photos = repository("data/photos");
        let fixed = ["tokenize", text(&photos), "--tokenizer", "tiny", "--out", "unused"];
        for (more, expected) in [
            (["--size", "250"], "multiple of its downsampling factor 8"),
            (["--precision", "fp8"], "fp32"),
            (["--device", "tpu"], "cuda:N"),
            (["--variant", "best"], "`raw` or `ema`"),
            (["--on-bad", "ignore"], "quarantine"),
            (["--rank", "3"], "ranks count from 0"),
            (["--views", "random-crop:5000"], "at most 4095"),
            (["--limit", "0"], "a number from 1"),
        ] {
            let message = fails(&[&fixed[..], &more[..]].concat(), 2);
            assert!(message.contains(expected), "{message}");
        }
        let output = tokengrid().args(fixed).env("RANK", "a").env("WORLD_SIZE", "2").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains("RANK=a"), "{stderr}");
        assert!(!Path::new("unused").exists());
    }

    #[test]
    fn output_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let message = tokenize(Path::new("tiny"), &file.join("cache"), 1);
        assert!(message.contains("file/cache"), "{message}");
        let message = tokenize(Path::new("tiny"), folder.path(), 1);
        assert!(message.contains("not empty") || message.contains("holds"), "{message}");
        assert_eq!(std::fs::read(&file).unwrap(), b"x", "nothing of the user's is touched");
    }

    #[test]
    fn one_is_not_said_as_many() {
        let folder = tempfile::tempdir().unwrap();
        let (source, cache) = (photos(folder.path(), 1, 1), folder.path().join("cache"));
        let said = |command: &[&str]| {
            let fixed = [text(&source), "--tokenizer", "tiny", "--size", "16"];
            let output = tokengrid().args(command).args(fixed).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let planned = said(&["tokenize", "--dry-run", "--out", text(&cache)]);
        assert!(planned.starts_with("1 image (1 class, 0 excluded), 1 row\n"), "{planned}");
        let made = said(&["tokenize", "--out", text(&cache)]);
        assert!(made.contains("\n1 row in "), "{made}");
        let measured = said(&["eval", "reconstruction"]);
        assert!(measured.starts_with("1 image, size 16, "), "{measured}");
    }

    #[test]
    fn configurations_suggest_the_nearest_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("run.toml");
        std::fs::write(&config, "[train]\nbatchsize = 3\n").unwrap();
        let message = fails(&["train", "ar", "--config", text(&config), "--cache", "x"], 2);
        assert!(message.contains("run.toml") && message.contains("did you mean `batch_size`"), "{message}");
        let message = fails(&["train", "ar", "--cache", "x", "--set", "model.presett=B"], 2);
        assert!(message.contains("unknown key `presett`"), "{message}");
        let message = fails(&["train", "ar", "--cache", "x", "--set", "model.preset=huge"], 2);
        assert!(message.contains("`B`, `L`, `XL`"), "{message}");
        let message = fails(&["train", "ar", "--set", "train.max_steps=0", "--cache", "x"], 2);
        assert!(message.contains("at least 1"), "{message}");
        std::fs::write(&config, "[train]\npeak_lr = = 3\n").unwrap();
        let message = fails(&["train", "ar", "--config", text(&config)], 2);
        assert!(message.contains("line 2"), "{message}");
        let message = fails(&["train", "tokenizer", "--data", "x", "--set", "loss.disc_loss=wgan"], 2);
        assert!(message.contains("`hinge`, `vanilla` or `non_saturate`"), "{message}");
        let message = fails(&["train", "ar", "--set", "data.access=mmap", "--cache", "x"], 2);
        assert!(message.contains("`map-random`"), "{message}");
        let message = fails(&["train", "ar"], 2);
        assert!(message.contains("--cache"), "{message}");
    }

    #[test]
    fn a_cache_that_does_not_fit_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let (source, cache) = (photos(folder.path(), 2, 1), folder.path().join("cache"));
        json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "16", "--out", text(&cache)]);
        let out = folder.path().join("run");
        let train = |more: &[&str], code| {
            let fixed = ["train", "ar", "--cache", text(&cache), "--out", text(&out), "--set", "model.preset=tiny"];
            fails(&[&fixed[..], more].concat(), code)
        };
        let message = train(&["--set", "model.block_size=256"], 1);
        assert!(message.contains("the grid is 2x2") && message.contains("16x16"), "{message}");
        let message = train(&["--set", "model.block_size=4", "--set", "model.factorized_bits=[6,6]"], 1);
        assert!(message.contains("bits per token is 18") && message.contains("12"), "{message}");
        let message = train(&["--set", "model.block_size=4", "--set", "model.class_num=1"], 1);
        assert!(message.contains("classes"), "{message}");
        assert!(!out.exists(), "nothing is written for a cache that does not fit");
        // Another tokenizer's cache into a run, and another tokenizer for sampling.
        let small = ["--set", "model.block_size=4", "--set", "model.class_num=2", "--set", "train.max_steps=1"];
        let fixed = ["train", "ar", "--cache", text(&cache), "--out", text(&out), "--set", "model.preset=tiny"];
        json(&[&fixed[..], &small[..]].concat());
        let message = fails(
            &[
                "sample",
                "--checkpoint",
                text(&out),
                "--tokenizer",
                text(&golden("tok_f4.ckpt")),
                "--out",
                text(&folder.path().join("s")),
            ],
            1,
        );
        assert!(message.contains("another tokenizer"), "{message}");
        let message = fails(
            &["sample", "--checkpoint", text(&out), "--tokenizer", "tiny", "--classes", "7", "--out", "unused"],
            2,
        );
        assert!(message.contains("classes 0 to 1"), "{message}");
    }

    #[test]
    fn a_number_of_heads_that_does_not_divide_the_model() {
        let checkpoint = golden("ar.ckpt");
        for n_head in ["0", "7"] {
            let message =
                fails(&["eval", "ar", "--checkpoint", text(&checkpoint), "--cache", "unused", "--n-head", n_head], 2);
            assert!(message.contains("--n-head"), "{message}");
        }
    }

    #[test]
    fn a_damaged_cache_is_named_and_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (source, cache) = (photos(folder.path(), 2, 2), folder.path().join("cache"));
        json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&cache)]);
        let shard = sorted(&cache).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
        let mut bytes = std::fs::read(&shard).unwrap();
        let middle = bytes.len() / 8;
        bytes[middle] ^= 4;
        std::fs::write(&shard, bytes).unwrap();
        let output = tokengrid().args(["cache", "verify", text(&cache), "--quiet"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(found.contains(&shard.file_name().unwrap().to_string_lossy().into_owned()), "{found}");
    }

    #[test]
    fn stopping_keeps_what_was_done_and_the_exit_code_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, out) = (folder.path().join("cache"), folder.path().join("run"));
        let source = photos(folder.path(), 2, 2);
        json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&cache)]);
        let program = assert_cmd::cargo::cargo_bin("tokengrid");
        let arguments = [
            "train",
            "ar",
            "--cache",
            text(&cache),
            "--out",
            text(&out),
            "--set",
            "model.preset=tiny",
            "--set",
            "model.block_size=16",
            "--set",
            "model.class_num=2",
            "--set",
            "train.max_steps=1000000",
        ];
        let mut child = std::process::Command::new(program)
            .args(arguments)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let metrics = out.join("metrics.jsonl");
        let lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        for _ in 0..600 {
            if lines() >= 3 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("checkpoints/latest/state.json")).unwrap()).unwrap();
        assert_eq!(state["step"].as_u64().unwrap() as usize, lines());
    }
}
