//! Every command of the README and the book runs as written, in a folder laid out like a checkout.
//!
//! To be fast, the bundled photographs are reduced to two per class, training runs to 2 steps, and the inspector is ended early.
//! Skipped commands are listed with the reason, and a reason that no command needs is an error.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;
#[path = "common/training.rs"]
mod training;

use common::{json, photos, repository, sorted, text};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use training::{arguments, made_up_cache, strs};

/// Texts that mark commands which cannot run here, with the reason.
const SKIPPED: &[(&str, &str)] = &[
    ("make ", "builds this program"),
    ("cargo ", "builds this program"),
    ("pip ", "downloads"),
    ("tensorboard ", "another program"),
    ("maturin ", "another program"),
    ("torchrun ", "another program"),
    ("sudo ", "changes the system"),
    ("s3://", "needs a bucket"),
    ("gs://", "needs a bucket"),
    ("az://", "needs a bucket"),
    ("https://example.org", "needs that server"),
    ("/data/imagenet", "needs ImageNet"),
    ("imagenet/val", "needs ImageNet"),
    ("ILSVRC2012", "needs ImageNet"),
    ("out/imagenet", "needs ImageNet"),
    ("imagenet_256_L.ckpt", "needs published weights"),
    ("AR_256_B.ckpt", "needs published weights"),
    ("published.ckpt", "needs published weights"),
    ("pt_inception", "needs published weights"),
    ("real.npy", "needs features of another network"),
    ("photos/tiny", "needs photographs that are not shipped"),
    ("photos/small", "downloads"),
    ("runs/tiny", "needs the training of the shipped models"),
    ("pack_weights", "needs the training of the shipped models"),
];

/// `tokengrid` as the commands find it: training is cut short, and the inspector is ended as Ctrl-C would.
const SHIM: &str = r#"#!/bin/bash
case "$1 $2" in
"train ar" | "train tokenizer")
    if [[ " $* " != *" --print-config"* ]]; then set -- "$@" --set train.max_steps=2; fi ;;
"view "*)
    timeout --signal INT 3 PROGRAM "$@" --port 0
    code=$?
    if [ $code = 124 ] || [ $code = 130 ]; then exit 0; fi
    exit $code ;;
esac
exec PROGRAM "$@"
"#;

/// A block of code of a page.
struct Block {
    page: String,
    language: String,
    code: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(repository(page)).unwrap();
    let mut lines = text.lines();
    let mut found = vec![];
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let code: Vec<&str> = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
        found.push(Block { page: page.into(), language: language.into(), code: code.join("\n") });
    }
    found
}

/// Commands of a block: lines, joined where they go on. Commands that run beside each other stay together.
fn commands(code: &str) -> Vec<String> {
    let joined = code.replace("\\\n", " ");
    if joined.lines().any(|line| line.trim_end().ends_with('&')) {
        return vec![joined];
    }
    joined.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A folder with what a checkout has, small.
fn checkout(folder: &Path) {
    std::fs::create_dir_all(folder.join("data/unseen")).unwrap();
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    std::fs::create_dir_all(folder.join("out")).unwrap();
    std::fs::rename(photos(folder, 12, 2), folder.join("data/photos")).unwrap();
    let unseen = &sorted(&repository("data/unseen"))[0];
    std::fs::copy(unseen, folder.join("data/unseen").join(unseen.file_name().unwrap())).unwrap();
    for name in ["scripts", "train"] {
        std::os::unix::fs::symlink(repository(name), folder.join(name)).unwrap();
    }
    let shim = SHIM.replace("PROGRAM", text(&assert_cmd::cargo::cargo_bin("tokengrid")));
    std::fs::write(folder.join("bin/tokengrid"), shim).unwrap();
    assert!(Command::new("chmod").args(["+x", text(&folder.join("bin/tokengrid"))]).status().unwrap().success());
}

fn run(command: &str, folder: &Path) -> Result<(), String> {
    let path = format!("{}:{}", text(&folder.join("bin")), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", command]).current_dir(folder).env("PATH", path);
    for name in ["RANK", "WORLD_SIZE", "SLURM_STEP_ID", "TOKENGRID_LOG"] {
        bash.env_remove(name);
    }
    let output = bash.output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command}\n    {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn every_command_of_the_book_runs_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    let mut pages = vec!["README.md".to_owned(), "docs/src/guide.md".to_owned()];
    for page in sorted(&repository("docs/src")) {
        let name = format!("docs/src/{}", page.file_name().unwrap().to_string_lossy());
        if name.ends_with(".md") && name != "docs/src/guide.md" {
            pages.push(name);
        }
    }
    let (mut failures, mut reasons, mut ran) = (vec![], HashSet::new(), 0);
    for block in pages.iter().flat_map(|page| blocks(page)) {
        if block.language == "toml"
            && let Some(file) = block.code.lines().next().and_then(|line| line.strip_prefix("# out/"))
        {
            std::fs::write(folder.path().join("out").join(file), &block.code).unwrap();
        }
        if block.language != "sh" {
            continue;
        }
        for command in commands(&block.code) {
            let skipped = SKIPPED.iter().find(|(word, _)| command.contains(word));
            if let Some((word, why)) = skipped {
                println!("skipped ({why}): {command}");
                reasons.insert(word);
                continue;
            }
            ran += 1;
            if let Err(failure) = run(&command, folder.path()) {
                failures.push(format!("{}: {failure}", block.page));
            }
        }
    }
    assert!(failures.is_empty(), "{} commands do not run as they stand:\n{}", failures.len(), failures.join("\n"));
    assert!(ran > 30, "only {ran} commands were found");
    let unused: Vec<_> = SKIPPED.iter().filter(|(word, _)| !reasons.contains(word)).collect();
    assert!(unused.is_empty(), "no command is skipped for {unused:?}");
}

/// A replacement of the package `wandb`, which is not installed: like the real one it accepts steps only in order.
const WANDB: &str = r#"
import json

class Run:
    step = 0

    def log(self, row, step):
        assert step >= self.step and "step" not in row, (step, self.step, row)
        self.step = step + 1
        print(json.dumps({"step": step, **row}))

    def finish(self):
        print("finished")

def init(project, id, resume):
    assert project and id == "first" and resume == "allow"
    return Run()
"#;

#[test]
fn the_snippet_for_weights_and_biases_sends_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let block = blocks("docs/src/guide.md").into_iter().find(|block| block.code.contains("wandb.init")).unwrap();
    assert_eq!(block.language, "python");
    std::fs::write(folder.path().join("to_wandb.py"), &block.code).unwrap();
    std::fs::write(folder.path().join("wandb.py"), WANDB).unwrap();
    let cache = made_up_cache(folder.path(), 20, 4, 18, 3);
    json(&strs(&arguments(&cache, &folder.path().join("run"), &["max_steps=5"])));
    let metrics = folder.path().join("run/metrics.jsonl");
    let whole = std::fs::read_to_string(&metrics).unwrap();
    // As a run leaves it that is being written to, or was killed.
    std::fs::write(&metrics, format!("{whole}{{\"step\": 6, \"train/lo")).unwrap();
    let sent =
        Command::new("python3").args(["to_wandb.py", "run", "first"]).current_dir(folder.path()).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let sent = String::from_utf8(sent.stdout).unwrap();
    let rows = |text: &str| -> Vec<Value> { text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    assert_eq!(rows(&sent), rows(&whole));
    assert!(rows(&sent).len() == 5 && sent.ends_with("finished\n"), "{sent}");
}
