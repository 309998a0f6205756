//! The GPU's route through every stage, on tensors of the CPU: whole batches, libtorch's operations, work queued ahead of
//! results. Only a GPU's arithmetic is not covered.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/sampling.rs"]
mod sampling;
#[path = "common/training.rs"]
mod training;

use common::{json, photos, repository, text, tokengrid};
use sampling::{images, model, sample};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokengrid_test_support::torch_environment;
use training::{arguments, cache, rows, strs};

/// Runs a command on the GPU's route; returns its `--json` output.
#[track_caller]
fn on_device(arguments: &[&str]) -> Value {
    let output = tokengrid().env("TOKENGRID_ROUTE", "device").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tokens_are_those_of_the_exact_mode_but_for_bits_near_zero() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 5);
    let command = |out: &Path| -> Vec<String> {
        let more = ["--tokenizer", "tiny", "--size", "32", "--batch-size", "4", "--device", "cpu", "--out"];
        ["tokenize", text(&source)].into_iter().chain(more).chain([text(out)]).map(String::from).collect()
    };
    let made = on_device(&strs(&command(&temp.path().join("cache"))));
    let drift = &made["drift"];
    assert_eq!((drift["views"].as_u64(), drift["outside_margin"].as_u64()), (Some(4), Some(0)), "{drift}");
    assert_eq!(made["rows"], 10);
}

/// Losses of a short run.
fn losses(cache: &Path, out: PathBuf, precision: &str, is_on_device: bool) -> Vec<f64> {
    let precision = format!("precision={precision}");
    let settings = ["max_steps=12", "log_every=1", "grad_accum=2", "ema_decay=0.9", &precision];
    let arguments = arguments(cache, &out, &settings);
    // The two routes draw dropout differently.
    let without = ["token_drop", "resid_dropout", "ffn_dropout"].map(|key| format!("model.{key}=0"));
    let without = without.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = strs(&arguments).into_iter().chain(without).collect();
    if is_on_device {
        on_device(&arguments)
    } else {
        json(&arguments)
    };
    rows(&out).iter().filter_map(|row| row["train/loss"].as_f64()).collect()
}

#[test]
fn losses_of_training_are_those_of_the_exact_mode_as_far_as_the_precision_goes() {
    let temp = tempfile::tempdir().unwrap();
    let cache = cache(temp.path());
    let exact = losses(&cache, temp.path().join("exact"), "fp32", false);
    assert_eq!(exact.len(), 12);
    for (precision, tolerance) in [("fp32", 1e-5), ("bf16", 3e-3), ("fp16", 3e-3)] {
        let run = losses(&cache, temp.path().join(precision), precision, true);
        assert_eq!(run.len(), 12, "{precision}");
        // Or else it was not that precision.
        assert!(precision == "fp32" || run != exact, "{precision}");
        for (step, (ours, want)) in run.iter().zip(&exact).enumerate() {
            assert!((ours - want).abs() <= tolerance * want, "{precision}, step {step}: {ours}, not {want}");
        }
    }
}

#[test]
fn stage_one_learns_alike() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 4);
    let run = |name: &str, is_on_device: bool| {
        let out = temp.path().join(name);
        let mut arguments = vec!["train", "tokenizer", "--data", text(&source), "--out", text(&out), "--device", "cpu"];
        for setting in
            ["model.preset=tiny", "train.max_steps=3", "train.log_every=1", "train.batch_size=4", "train.image_size=32"]
        {
            arguments.extend(["--set", setting]);
        }
        if is_on_device {
            on_device(&arguments)
        } else {
            json(&arguments)
        };
        rows(&out).iter().filter_map(|row| row["train/nll_loss"].as_f64()).collect::<Vec<f64>>()
    };
    let (exact, device) = (run("exact", false), run("device", true));
    assert_eq!(device.len(), 3);
    for (ours, want) in device.iter().zip(&exact) {
        assert!((ours - want).abs() <= 1e-4 * want, "{device:?} {exact:?}");
    }
}

#[test]
fn samples_are_drawn_alike() {
    let temp = tempfile::tempdir().unwrap();
    let model = model(temp.path());
    let run = |name: &str, is_on_device: bool| {
        let out = temp.path().join(name);
        let arguments =
            [&sample(&model, &["--device", "cpu", "--num-per-class", "2"])[..], &["--out", text(&out)]].concat();
        if is_on_device {
            on_device(&arguments)
        } else {
            json(&arguments)
        };
        images(&out)
    };
    let (exact, device) = (run("exact", false), run("device", true));
    assert_eq!(exact.len(), device.len());
    // Pixels differ by roundings of the decoder.
    for ((_, ours), (path, want)) in device.iter().zip(&exact).filter(|(_, (path, _))| path.starts_with("tokens")) {
        assert!(ours == want, "{}", path.display());
    }
}

#[test]
fn reconstructions_are_measured_alike() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 3);
    let more = ["--tokenizer", "tiny", "--size", "64", "--device", "cpu"];
    let arguments = [&["eval", "reconstruction", text(&source)][..], &more].concat();
    let (exact, device) = (json(&arguments), on_device(&arguments));
    for name in ["psnr", "ssim"] {
        let (ours, want) = (device[name].as_f64().unwrap(), exact[name].as_f64().unwrap());
        assert!((ours - want).abs() <= 1e-3 * want, "{name}: {ours}, not {want}");
    }
}

#[test]
fn the_check_for_a_gpu_goes_through_here_too() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("check");
    // With PyTorch, where it is, what is measured beside it is rehearsed as well.
    let pytorch = torch_environment();
    let python = pytorch.as_ref().map_or("python3".into(), |folder| folder.join("bin/python"));
    let output = std::process::Command::new(python)
        .arg("-B")
        .arg(repository("scripts/gpu/check.py"))
        .args([
            text(&out),
            "--program",
            env!("CARGO_BIN_EXE_tokengrid"),
            "--device",
            "cpu",
            "--small",
            "--minutes",
            "60",
        ])
        .env("TOKENGRID_ROUTE", "device")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let check: Value = serde_json::from_slice(&std::fs::read(out.join("check.json")).unwrap()).unwrap();
    let steps = check["steps"].as_array().unwrap();
    assert_eq!(steps.len(), if pytorch.is_some() { 15 } else { 12 }, "{check}");
    let of = |name: &str, value: &str| {
        steps.iter().find(|step| step["step"] == name).map(|step| step["result"][value].clone()).unwrap()
    };
    assert_eq!(of("tokens, fp32", "not near 0"), 0);
    for step in ["losses, fp32", "losses with graphs, fp32", "two processes on one device, gloo"] {
        assert!(of(step, "largest relative difference").as_f64().unwrap() < 1e-5, "{step}: {check}");
    }
    assert_eq!(of("losses with graphs, fp32", "last"), of("losses, fp32", "last"));
    for what in ["training", "sampling"] {
        let said = of(&format!("memory that runs out in {what}"), "said");
        assert!(said.as_str().unwrap().contains("batch"), "{said}");
    }
    if pytorch.is_some() {
        // Or else other models were compared.
        let ours = of("training, tiny, fp32, batch 2", "parameters");
        assert_eq!(ours, of("training in PyTorch, tiny, batch 2", "parameters"));
        assert_eq!(ours, of("sampling in PyTorch, tiny, batch 1", "parameters"));
    }
}
