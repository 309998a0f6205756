//! Evaluation in several real processes gives the results of one, to the bit, and prints one report.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/networks.rs"]
mod networks;
#[path = "common/ranks.rs"]
mod ranks;
#[path = "common/training.rs"]
mod training;

use common::{json, photos, sorted, text};
use networks::{inception, lpips};
use ranks::{Ended, end, free_port, start, start_rank};
use serde_json::Value;
use std::path::Path;
use tokengrid_model::perceptual::Backbone;
use training::made_up_cache;

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| word.to_string()).collect()
}

/// The answer of a command that runs in `world_size` processes, without what differs from run to run.
#[track_caller]
fn among(arguments: &[&str], world_size: usize) -> Value {
    let arguments = words(&[arguments, &["--json", "--threads", "1"]].concat());
    let ends: Vec<Ended> = start(&arguments, world_size).into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(0)), "{ends:#?}");
    assert!(ends[1..].iter().all(|ended| ended.stdout.is_empty()), "rank 0 answers for all: {ends:#?}");
    let mut answer: Value = serde_json::from_str(&ends[0].stdout).unwrap();
    answer.as_object_mut().unwrap().retain(|key, _| !key.contains("second"));
    answer
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    sorted(folder).iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_reconstruction_has_the_same_figures_in_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    // Ten pictures, which neither two nor three divide evenly into blocks, and two that cannot be used.
    let source = photos(folder.path(), 5, 2);
    std::fs::write(source.join("broken.jpg"), b"no picture").unwrap();
    std::fs::write(sorted(&source)[2].join("a.png"), b"nor this").unwrap();
    let nets = [inception(folder.path()), lpips(folder.path(), Backbone::AlexNet, "eval:alex:")];
    let run = |world_size: usize| {
        let out = folder.path().join(format!("look-{world_size}"));
        let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "32", "--device", "cpu"];
        let more = ["--inception", text(&nets[0]), "--lpips-alex", text(&nets[1]), "--out", text(&out), "--pairs", "3"];
        (among(&[&fixed[..], &more].concat(), world_size), files(&out))
    };
    let one = run(1);
    assert_eq!((one.0["images"].as_u64(), one.0["bad"].as_array().unwrap().len()), (Some(10), 2));
    assert!(one.0["rfid"].as_f64().unwrap() > 0.0 && one.0["lpips_alex"].is_number(), "{}", one.0);
    for world_size in [2, 3] {
        assert_eq!(run(world_size), one, "{world_size} processes");
    }
}

#[test]
fn samples_have_the_same_figures_in_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (source, network) = (photos(folder.path(), 4, 3), inception(folder.path()));
    let [a, b] = [0, 1].map(|side| {
        let half = folder.path().join(format!("half-{side}"));
        std::fs::create_dir(&half).unwrap();
        // What is moved for the first half is not there for the second.
        for class in sorted(&source).into_iter().take(2) {
            std::fs::rename(&class, half.join(class.file_name().unwrap())).unwrap();
        }
        half
    });
    let run = |world_size: usize| {
        let stats = folder.path().join(format!("stats-{world_size}.npz"));
        let fixed = ["eval", "samples", text(&a), text(&b), "--inception", text(&network), "--size", "32"];
        let more = ["--splits", "2", "--precision-recall", "--save-stats", text(&stats), "--device", "cpu"];
        (among(&[&fixed[..], &more].concat(), world_size), std::fs::read(stats).unwrap())
    };
    let one = run(1);
    assert!(one.0["fid"].as_f64().unwrap() > 0.0 && one.0["inception_score"].is_number(), "{}", one.0);
    for world_size in [2, 3] {
        assert!(run(world_size) == one, "{world_size} processes: {}", one.0);
    }
}

#[test]
fn a_loss_has_the_same_bits_in_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Ten batches, the last of them smaller: three processes have four, three and three.
    let cache = made_up_cache(folder.path(), 150, 4, 18, 5);
    let settings = ["model.preset=tiny", "model.dim=32", "model.n_head=2", "model.class_num=5", "model.block_size=16"];
    let steps = ["train.max_steps=20", "train.batch_size=8", "train.peak_lr=0.01", "train.warmup_steps=0"];
    let settings: Vec<&str> = settings.into_iter().chain(steps).flat_map(|setting| ["--set", setting]).collect();
    json(&[&["train", "ar", "--cache", text(&cache), "--out", text(&run)], &settings[..]].concat());
    let arguments = ["eval", "ar", "--checkpoint", text(&run), "--cache", text(&cache), "--device", "cpu"];
    // Of the first 20 rows, one of three processes has none.
    for limit in [None, Some("20")] {
        let arguments: Vec<&str> =
            arguments.into_iter().chain(limit.into_iter().flat_map(|rows| ["--limit", rows])).collect();
        let one = among(&arguments, 1);
        assert_eq!(one["tokens"], 16 * limit.map_or(150, |rows| rows.parse().unwrap()));
        for world_size in [2, 3] {
            assert_eq!(among(&arguments, world_size), one, "{world_size} processes");
        }
    }
}

#[test]
fn processes_that_evaluate_different_things_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let port = free_port();
    let children = [(0, "4"), (1, "3")].map(|(rank, limit)| {
        let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "32", "--device", "cpu"];
        start_rank(&words(&[&fixed[..], &["--limit", limit]].concat()), rank, 2, port)
    });
    for ended in children.into_iter().map(end) {
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains("rank 1 was started differently: what is evaluated is 3 images"), "{ended:#?}");
    }
}
