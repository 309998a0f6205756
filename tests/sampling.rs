//! `sample` as a user runs it: several processes, kills, settings, and images that depend on nothing else.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/sampling.rs"]
mod sampling;

use common::{fails, json, text};
use sampling::{SIDE, images, model, model_of, sample};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    for name in ["RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"] {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn batches_ranks_and_kills_change_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let dir = |name: &str| folder.path().join(name);
    let many = ["--num-per-class", "20"];
    let (whole, npz, tokens) = (dir("whole"), dir("whole.npz"), dir("whole.npy"));
    let joined = ["--npz", text(&npz), "--tokens", text(&tokens), "--out", text(&whole)];
    let outcome = json(&[&sample(&model, &many)[..], &["--batch-size", "64"], &joined].concat());
    assert_eq!((outcome["images"].as_u64(), outcome["complete"].as_bool()), (Some(60), Some(true)));

    for batch_size in ["1", "7"] {
        let out = dir(batch_size);
        json(&[&sample(&model, &many)[..], &["--batch-size", batch_size, "--out", text(&out)]].concat());
        assert!(images(&out) == images(&whole), "batches of {batch_size}");
    }

    let (parts, parts_npz, parts_tokens) = (dir("parts"), dir("parts.npz"), dir("parts.npy"));
    let joined = ["--npz", text(&parts_npz), "--tokens", text(&parts_tokens), "--out", text(&parts)];
    let ranked = |rank: &'static str| {
        let ranks = ["--batch-size", "1", "--rank", rank, "--world-size", "2"];
        [&sample(&model, &many)[..], &ranks, &joined].concat()
    };
    let mut children = [start(&ranked("0")), start(&ranked("1"))];
    // Killed once it has begun to write.
    while !parts.join("images").exists() && children[1].try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    children[1].kill().unwrap();
    children[1].wait().unwrap();
    assert!(children[0].wait().unwrap().success());
    let last = json(&ranked("1"));
    assert_eq!(last["complete"], true, "{last}");
    assert!(images(&parts) == images(&whole), "two processes");
    let same = |a: &Path, b: &Path| assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "{}", a.display());
    same(&parts_npz, &npz);
    same(&parts_tokens, &tokens);
    same(&parts.join("grid.png"), &whole.join("grid.png"));
}

#[test]
fn a_rank_that_is_first_says_who_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let npz = folder.path().join("all.npz");
    let ranked = |rank| {
        let more = ["--rank", rank, "--world-size", "2", "--out", text(&out), "--npz", text(&npz)];
        json(&[&sample(&model, &[])[..], &more].concat())
    };
    let first = ranked("0");
    assert_eq!((first["complete"].as_bool(), first["waiting_for"].as_u64()), (Some(false), Some(1)));
    assert!(!npz.exists() && first["grid"].is_null());
    assert_eq!(ranked("1")["complete"], true);
    assert!(npz.is_file());
    let both = ["--overwrite", "--rank", "0", "--world-size", "2", "--out", text(&out)];
    assert!(fails(&[&sample(&model, &[])[..], &both].concat(), 2).contains("--overwrite"));
}

#[test]
fn images_of_other_settings_are_never_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out, npz) = (model(folder.path()), folder.path().join("out"), folder.path().join("all.npz"));
    let run = |seed: &str, per_class: &str, out: &Path, more: &[&str]| {
        let fixed = ["--seed", seed, "--num-per-class", per_class, "--out", text(out)];
        json(&[&sample(&model, &[])[..], &fixed, more].concat())
    };
    let refused = |seed: &str, more: &[&str]| {
        let fixed = ["--seed", seed, "--num-per-class", "6", "--out", text(&out)];
        fails(&[&sample(&model, &[])[..], &fixed, more].concat(), 1)
    };
    let fresh = folder.path().join("fresh");
    run("2", "6", &fresh, &[]);
    run("1", "6", &out, &[]);
    run("1", "2", &out, &[]);
    let overwritten = run("2", "2", &out, &["--overwrite"]);
    assert_eq!(overwritten["images_now"], 6);
    let grown = run("2", "6", &out, &["--npz", text(&npz)]);
    assert_eq!((grown["images"].as_u64(), grown["images_now"].as_u64()), (Some(18), Some(12)));
    assert!(images(&out) == images(&fresh), "no image of the first seed is left");

    // A record that is lost or damaged lets none of them in either.
    for damage in [Some(&b""[..]), Some(b"{\"model\": "), None] {
        match damage {
            Some(bytes) => std::fs::write(out.join("sample.json"), bytes).unwrap(),
            None => std::fs::remove_file(out.join("sample.json")).unwrap(),
        }
        let message = refused("3", &[]);
        assert!(message.contains("--overwrite"), "{message}");
        if damage.is_some() {
            assert!(message.contains("sample.json is damaged"), "{message}");
        } else {
            assert!(message.contains("image of other settings"), "{message}");
        }
    }
    assert!(images(&out) == images(&fresh), "nothing was touched");
    // The images of the same settings are still known.
    assert_eq!(run("2", "6", &out, &["--overwrite"])["images_now"], 0);
}

#[test]
fn what_a_crash_left_empty_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let command = [&sample(&model, &["--diagnostics", "--num-per-class", "2"])[..], &["--out", text(&out)]].concat();
    json(&command);
    let before = images(&out);
    let victims = [
        ("images/0000/00000.png", 0),
        ("images/0000/00001.png", 4096),
        ("tokens/0001/00000.npy", 0),
        ("tokens/0001/00001.npy", 192),
        ("diagnostics/0002/00000.json", 0),
    ];
    for (name, zeros) in victims {
        std::fs::write(out.join(name), vec![0; zeros]).unwrap();
    }
    assert_eq!(json(&command)["images_now"], victims.len());
    assert!(images(&out) == before);
    assert_eq!(json(&command)["images_now"], 0);
    let leftovers = std::fs::read_dir(&out)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn presets_are_recorded_and_what_is_typed_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let fixed = ["sample", "--checkpoint", text(&model), "--tokenizer", "tiny", "--out", text(&out), "--classes", "1"];
    let more = ["--preset", "XL", "--temperature", "1,0.9", "--cfg-schedule", "cosine"];
    json(&[&fixed[..], &more].concat());
    let recorded: Value = serde_json::from_slice(&std::fs::read(out.join("sample.json")).unwrap()).unwrap();
    let config = &recorded["config"];
    assert_eq!(recorded["preset"], "XL");
    assert_eq!(config["cfg_scale"], serde_json::json!([1.75, 1.85]));
    assert_eq!(config["temperature"], serde_json::json!([1.0, 0.9]));
    assert_eq!(config["cfg_schedule"], "cosine");
    let message = fails(&[&fixed[..], &["--preset", "L"]].concat(), 1);
    assert!(message.contains("sampling settings"), "{message}");
}

#[test]
fn diagnostics_lie_beside_each_image_and_change_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let (plain, told) = (folder.path().join("plain"), folder.path().join("told"));
    let settings = ["--top-k", "8,100", "--top-p", "0.9,0.8", "--temperature", "0.9,1.1"];
    json(&[&sample(&model, &settings)[..], &["--out", text(&plain)]].concat());
    json(&[&sample(&model, &settings)[..], &["--out", text(&told), "--diagnostics"]].concat());
    assert!(images(&plain) == images(&told));
    let json: Value =
        serde_json::from_slice(&std::fs::read(told.join("diagnostics/0001/00000.json")).unwrap()).unwrap();
    for (part, vocab) in [("low_bits", 64f64), ("high_bits", 4096.0)] {
        let list = |key: &str| -> Vec<f64> {
            json[part][key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let (entropy, kept, chosen) = (list("entropy_nats"), list("kept"), list("chosen"));
        assert_eq!([entropy.len(), kept.len(), chosen.len()], [SIDE * SIDE; 3]);
        assert!(entropy.iter().all(|&nats| nats > 0.0 && nats <= vocab.ln()), "{entropy:?}");
        assert!(kept.iter().zip(&chosen).all(|(kept, chosen)| chosen <= kept && *kept <= 1.0), "{kept:?} {chosen:?}");
        assert!(kept.iter().any(|&kept| kept < 0.95), "filters drop something: {kept:?}");
    }
    assert!(told.join("diagnostics/0001/00000.png").is_file());
}

#[test]
fn the_benchmark_measures_every_batch_size() {
    let shape = [
        "model.dim=64",
        "model.n_head=4",
        "model.spatial_n_layer=1",
        "model.factorized_n_layer=1",
        "model.block_size=16",
    ];
    let settings: Vec<&str> = shape.iter().flat_map(|key| ["--set", key]).collect();
    let fixed = ["bench", "sample", "--device", "cpu", "--threads", "1", "--rounds", "2", "--batch-size", "1,3"];
    let found = json(&[&fixed[..], &settings].concat());
    assert_eq!((found["unit"].as_str(), found["tokens_per_image"].as_u64()), (Some("images"), Some(16)));
    let batches = found["batches"].as_array().unwrap();
    assert_eq!(batches.iter().map(|batch| batch["batch_size"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for batch in batches {
        let number = |key: &str| batch[key].as_f64().unwrap();
        assert_eq!(batch["rounds"].as_array().unwrap().len(), 2);
        assert!((number("images_per_second") * number("seconds_per_image") - 1.0).abs() < 1e-9);
        assert!((number("tokens_per_second") / number("images_per_second") - 16.0).abs() < 1e-6);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let refused = |more: &[&str], code: i32| {
        let fixed = ["sample", "--checkpoint", text(&model), "--tokenizer", "tiny", "--out", text(&out)];
        fails(&[&fixed[..], more].concat(), code)
    };
    assert!(refused(&["--classes", "0,3"], 2).contains("classes 0 to 2"));
    assert!(refused(&["--classes", "1,1"], 2).contains("twice"));
    let message = refused(&["--top-k", "65,0"], 2);
    assert!(message.contains("65") && message.contains("64"), "{message}");
    assert!(!out.exists(), "nothing is written by a run that is refused");
    let narrow = model_of(folder.path(), [6, 10]);
    let message = fails(&["sample", "--checkpoint", text(&narrow), "--tokenizer", "tiny", "--out", text(&out)], 1);
    assert!(message.contains("do not fit") && message.contains("16 bits") && message.contains("18"), "{message}");
}
