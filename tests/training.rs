//! The training commands: configurations, refusals, convergence, and weights to start from.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/training.rs"]
mod training;

use common::{fails, json, repository, text, tokengrid};
use std::path::{Path, PathBuf};
use tokengrid_model::{Params, Variant, Weights};
use tokengrid_test_support::{golden, golden_json};
use tokengrid_train::run::save_safetensors;
use training::{arguments, cache, made_up_cache, printed, rows, strs};

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
fn a_dry_run_tells_what_gpus_would_need_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let plan = |more: &[&str]| {
        let fixed = ["train", "ar", "--dry-run", "--device", "cuda", "--out", text(&run), "--set", "model.preset=XL"];
        json(&[&fixed[..], more].concat())
    };
    let shared = ["--world-size", "10", "--grad-accum", "auto", "--set", "train.shard_optimizer=true"];
    let (alone, shared) = (plan(&[]), plan(&shared));
    assert_eq!(
        (&alone["global_batch"], &shared["global_batch"], &shared["processes"]),
        (&8.into(), &768.into(), &10.into())
    );
    let bytes = |plan: &serde_json::Value| plan["memory_bytes"].as_u64().unwrap();
    // Two moments of four bytes: nine tenths of them are elsewhere.
    assert_eq!(bytes(&alone) - bytes(&shared), alone["parameters"].as_u64().unwrap() * 8 * 9 / 10);
    assert!(alone["steps"].is_null(), "there is no cache that tells: {alone}");
    let cache = made_up_cache(folder.path(), 12, 16, 18, 3);
    let told = plan(&["--cache", text(&cache), "--set", "train.epochs=10", "--set", "train.batch_size=4"]);
    assert_eq!((&told["images"], &told["steps"]), (&12.into(), &30.into()), "10 x 12 / 4: {told}");
    // Averages are a copy in memory, and samples during the run need more memory.
    let more = plan(&["--set", "train.ema_decay=0.9", "--set", "train.sample_every=5"]);
    assert!(bytes(&more) >= bytes(&alone) + alone["parameters"].as_u64().unwrap() * 4);
    let message = fails(&["train", "ar", "--dry-run", "--device", "cudaX", "--out", text(&run)], 2);
    assert!(message.contains("cudaX") && message.contains("cuda:N"), "{message}");
    assert!(!run.exists());
}

#[test]
fn a_yaml_file_of_the_reference_is_converted_and_says_what_it_leaves_out() {
    let yaml = repository("train/tests/fixtures/reference_ar.yaml");
    let (config, notes) = printed(&["train", "ar", "--config", text(&yaml), "--print-config"]);
    assert!(config.contains("dim = 128") && config.contains("warmup_epochs = 3"), "{config}");
    assert!(notes.contains("reference_ar.yaml, not honoured: trainer.precision = 16-mixed: "), "{notes}");
    // Settings that are given elsewhere are one line, or a list with `-v`.
    assert!(notes.contains(" settings are given elsewhere") && !notes.contains("trainer.devices = 4"), "{notes}");
    let (_, all) = printed(&["train", "ar", "--config", text(&yaml), "--print-config", "-v"]);
    assert!(all.contains("reference_ar.yaml, given elsewhere: trainer.devices = 4: "), "{all}");
    let auto = ["train", "ar", "--config", text(&yaml), "--print-config", "--grad-accum", "auto"];
    assert!(printed(&auto).0.contains("global_batch = 40"), "2 nodes of 4 devices with 5 samples each");
    let message = fails(&["train", "tokenizer", "--config", text(&yaml)], 2);
    assert!(message.contains("use `train ar`"), "{message}");
}

#[test]
fn numbers_out_of_range_are_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let keys = |keys: &'static [&'static str], values: &'static [&'static str]| {
        keys.iter().flat_map(move |key| values.iter().map(move |value| (*key, *value)))
    };
    let below_zero: &[&str] = &["nan", "inf", "-1.0"];
    let in_both = keys(&["train.epochs", "train.max_steps"], &["0"])
        .chain(keys(&["train.betas"], &["[1.0, 2.0]", "[0.9, 1.0]", "[nan, 0.9]", "[-0.1, 0.9]"]));
    let ar =
        keys(&["train.peak_lr", "train.weight_decay", "train.wp0", "train.wpe", "train.warmup_epochs"], below_zero)
            .chain(keys(&["train.epochs"], below_zero))
            .chain(keys(&["train.wp0", "train.wpe"], &["1.5"]))
            .chain(keys(&["train.peak_tflops"], &["nan", "0.0", "inf"]))
            .chain(keys(&["train.save_best"], &["loss", "val/loss_ema"]))
            .chain(keys(&["train.logger"], &["wandb", "[\"jsonl\", \"csv\"]"]))
            .chain(keys(&["train.fid_cfg_scale"], &["[nan, 1.0]", "[1.0, -1.0]"]))
            .chain(keys(&["train.fid_samples"], &["0", "1"]))
            .chain(keys(&["train.ema_decay"], &["nan", "-0.1", "1.0"]))
            .chain(keys(&["train.grad_clip"], &["nan", "0.0", "-1.0"]))
            .chain(keys(
                &["model.token_drop", "model.resid_dropout", "model.ffn_dropout", "model.class_dropout"],
                below_zero,
            ));
    let tokenizer = keys(&["train.save_best", "train.logger"], &["val/loss"])
        .chain(keys(&["train.lr", "train.epochs", "train.ema_decay", "train.lr_end"], below_zero))
        .chain(keys(&["train.lr_drop_rate", "loss.mse_share", "loss.perceptual_weight"], below_zero))
        .chain(keys(&["loss.gen_loss_weight", "loss.lecam_loss_weight", "loss.codebook_weight"], below_zero))
        .chain(keys(&["loss.codebook_enlarge_ratio", "loss.commit_weight"], below_zero))
        .chain(keys(&["loss.mse_share"], &["1.5"]))
        .chain(keys(&["train.scale"], &["[nan, 2.0]", "[1.0, inf]"]));
    let commands =
        [("ar", in_both.clone().chain(ar).collect::<Vec<_>>()), ("tokenizer", in_both.chain(tokenizer).collect())];
    for (command, settings) in commands {
        for (key, value) in settings {
            let setting = format!("{key}={value}");
            let message = fails(&["train", command, "--out", text(&out), "--set", &setting, "--print-config"], 2);
            assert!(message.contains(key), "{setting}: {message}");
        }
    }
    let none = ["train", "ar", "--out", text(&out), "--set", "train.grad_clip=inf", "--print-config"];
    assert!(printed(&none).0.contains("grad_clip = inf"));
}

/// The small tokenizer with other weights.
fn other_tokenizer(folder: &Path) -> PathBuf {
    let tiny = tokengrid_model::tiny::open_tokenizer("tiny".as_ref()).unwrap();
    let params = tiny.tokenizer_params(Variant::Raw).unwrap();
    let params: Params = params.iter().map(|(name, tensor)| (name.to_string(), tensor * 1.01)).collect();
    let path = folder.join("other.safetensors");
    save_safetensors(&path, params.iter(), Default::default()).unwrap();
    path
}

#[test]
fn the_batch_of_the_reference_is_kept_on_the_devices_at_hand_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1", "batch_size=64", "warmup_steps=0"]);
    let (answer, log) = printed(&[&strs(&arguments)[..], &["--grad-accum", "auto"]].concat());
    assert!(
        answer.starts_with("step 1: loss ") && answer.contains(" tokens/s (median of the logged steps), "),
        "{answer}"
    );
    assert!(log.contains("768 samples per step: 1 x 12 x 64 "), "{log}");
    assert_eq!(rows(&run)[0]["epoch"], 128.0);
    let resolved = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(resolved.contains("grad_accum = \"auto\"") && resolved.contains("global_batch = 768"), "{resolved}");
    // A file of the reference names its devices: what it asks for is told beside what is done.
    let yaml = repository("train/tests/fixtures/reference_ar.yaml");
    let other = folder.path().join("other");
    let fixed =
        ["train", "ar", "--config", text(&yaml), "--cache", text(&cache), "--out", text(&other), "--device", "cpu"];
    let small = [
        "--set",
        "train.max_steps=1",
        "--set",
        "model.dim=32",
        "--set",
        "model.spatial_n_layer=1",
        "--set",
        "model.block_size=16",
        "--set",
        "model.class_num=3",
    ];
    let (_, log) = printed(&[&fixed[..], &small].concat());
    assert!(log.contains("5 samples per step") && log.contains("asks for 40 on its devices"), "{log}");
    assert!(fails(&["train", "ar", "--grad-accum", "many"], 2).contains("expected `auto` or a number"));
    for wrong in ["0", "-1", "many"] {
        let message = fails(&["train", "ar", "--set", &format!("train.grad_accum={wrong}"), "--print-config"], 2);
        assert!(message.contains("grad_accum"), "{message}");
    }
}

#[test]
fn a_loss_on_another_tokenizers_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, other) = (cache(folder.path()), folder.path().join("run"), folder.path().join("other"));
    let (photos, tokenizer) = (folder.path().join("photos"), other_tokenizer(folder.path()));
    json(&["tokenize", text(&photos), "--tokenizer", text(&tokenizer), "--size", "32", "--out", text(&other)]);
    let arguments = arguments(&cache, &run, &["max_steps=1"]);
    let message = fails(&[&strs(&arguments)[..], &["--val-cache", text(&other)]].concat(), 1);
    assert!(message.contains("the tokenizer is") && message.contains("other"), "{message}");
    json(&strs(&arguments));
    let eval = |cache: &Path| ["eval", "ar", "--checkpoint", text(&run), "--cache", text(cache)].map(String::from);
    let message = fails(&eval(&other).each_ref().map(String::as_str), 1);
    assert!(message.contains("the tokenizer is"), "{message}");
    json(&eval(&cache).each_ref().map(String::as_str));
}

#[test]
fn several_processes_without_a_place_to_meet_are_refused_and_one_among_a_launchers_variables_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1", "batch_size=2"]);
    let message = fails(&[&strs(&arguments)[..], &["--rank", "1", "--world-size", "2"]].concat(), 2);
    assert!(message.contains("MASTER_ADDR") && message.contains("torchrun"), "{message}");
    let launched = |more: &[&str]| {
        let mut command = tokengrid();
        command
            .env("SLURM_STEP_ID", "0")
            .env("SLURM_PROCID", "3")
            .env("SLURM_NTASKS", "4")
            .args(&arguments)
            .args(more)
            .output()
            .unwrap()
    };
    let output = launched(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MASTER_ADDR"));
    assert!(!run.exists(), "nothing is begun");
    assert!(launched(&["--world-size", "1"]).status.success());
}

#[test]
fn a_model_of_fourteen_bits_trains_and_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 12, 4, 14, 3), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=60", "batch_size=6", "peak_lr=4e-3"]);
    let message = fails(&strs(&arguments), 1);
    assert!(message.contains("bits per token is 14") && message.contains("factorized_bits"), "{message}");
    json(&[&strs(&arguments)[..], &["--set", "model.factorized_bits=[4, 10]"]].concat());
    let rows = rows(&run);
    let (first, last) = (rows[0]["train/loss"].as_f64().unwrap(), rows[59]["train/loss"].as_f64().unwrap());
    let uniform = 14.0 * 2f64.ln();
    assert!((first - uniform).abs() < 1e-3 && last < 0.9 * first, "{first} {last}");
    let loss = json(&["eval", "ar", "--checkpoint", text(&run), "--cache", text(&cache), "--device", "cpu"]);
    assert!(loss["loss"].as_f64().unwrap() < first);
}

#[test]
fn a_run_begun_from_an_exported_checkpoint_has_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (cache, run, again) = (made_up_cache(dir, 8, 4, 18, 3), dir.join("run"), dir.join("again"));
    // A step takes all images: every loss is over the same data.
    let whole = ["batch_size=8", "peak_lr=1e-3", "warmup_steps=1", "wp0=0.0"];
    let plain = ["--set", "model.class_dropout=0", "--set", "model.ffn_dropout=0"];
    let trained = arguments(&cache, &run, &[&whole[..], &["max_steps=8"]].concat());
    json(&[&strs(&trained)[..], &plain].concat());
    let reference = dir.join("reference.safetensors");
    json(&["weights", "convert", text(&run), text(&reference), "--to", "reference"]);
    let init = format!("init_from={}", text(&reference));
    // The first step has a learning rate of 0.
    let begun = arguments(&cache, &again, &[&whole[..], &["max_steps=1", &init]].concat());
    json(&[&strs(&begun)[..], &plain].concat());
    let evaluated = json(&["eval", "ar", "--checkpoint", text(&run), "--cache", text(&cache), "--device", "cpu"]);
    let (first, last) = (rows(&again)[0]["train/loss"].as_f64().unwrap(), evaluated["loss"].as_f64().unwrap());
    assert!((first - last).abs() < 1e-5 * last, "{first} {last}");
    assert!(last < rows(&run)[0]["train/loss"].as_f64().unwrap() - 0.01, "it had learnt something");
    let weights = |run: &Path| Weights::open(&run.join("checkpoints/latest/model.safetensors")).unwrap();
    let (a, b) = (weights(&run), weights(&again));
    assert!(a.names().eq(b.names()));
    assert!(a.names().all(|name| a.tensor(name).unwrap().equal(&b.tensor(name).unwrap())));
    let other = [&strs(&begun)[..], &["--set", "model.n_head=4", "--overwrite"]].concat();
    let message = fails(&other, 2);
    assert!(message.contains("2 heads") && message.contains("model.n_head"), "{message}");
}

#[test]
fn a_published_checkpoint_is_trained_from_and_exported_under_the_same_names() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, published) = (folder.path(), golden("ar.ckpt"));
    let config = golden_json("ar.json")["config"].clone();
    let model = ["dim", "n_head", "spatial_n_layer", "factorized_n_layer", "block_size", "class_num"]
        .map(|key| format!("model.{key}={}", config[key]));
    let side = config["block_size"].as_i64().unwrap().isqrt();
    let (cache, run) = (made_up_cache(dir, 4, side, 18, 3), dir.join("run"));
    let init = format!("init_from={}", text(&published));
    let mut arguments = arguments(&cache, &run, &["max_steps=1", "warmup_steps=1", "wp0=0.0", "batch_size=4", &init]);
    arguments.extend(model.into_iter().flat_map(|setting| ["--set".to_string(), setting]));
    json(&strs(&arguments));
    let (out, all) = (dir.join("out.safetensors"), dir.join("all.safetensors"));
    json(&["weights", "convert", text(&run), text(&out), "--to", "reference", "--tokenizer", text(&published)]);
    json(&["weights", "convert", text(&published), text(&all)]);
    let (a, b) = (Weights::open(&out).unwrap(), Weights::open(&all).unwrap());
    assert!(a.names().eq(b.names()));
    for name in a.names() {
        assert!(a.tensor(name).unwrap().equal(&b.tensor(name).unwrap()), "{name}");
    }
}

#[test]
fn the_bundled_photographs_are_learnt_below_three_quarters_of_their_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (folder.path().join("cache"), folder.path().join("run"));
    let source = repository("data/photos");
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "64", "--out", text(&cache)]);
    // One thread: two that wait for each other are slow where other tests keep the cores busy.
    let train = ["train", "ar", "--cache", text(&cache), "--out", text(&run), "--device", "cpu", "--threads", "1"];
    let settings = ["model.preset=tiny", "model.dim=96", "model.class_num=12", "model.block_size=64"];
    let settings = [&settings[..], &["train.max_steps=120", "train.batch_size=12", "train.peak_lr=4e-3"]].concat();
    let settings: Vec<&str> = settings.into_iter().flat_map(|setting| ["--set", setting]).collect();
    json(&[&train[..], &settings].concat());
    let losses: Vec<f64> = rows(&run).iter().map(|row| row["train/loss"].as_f64().unwrap()).collect();
    // Nothing is known at first: 18 bits.
    assert!((losses[0] - 18.0 * 2f64.ln()).abs() < 1e-3, "{}", losses[0]);
    let last = losses[110..].iter().sum::<f64>() / 10.0;
    let three_quarters = 0.75 * losses[0];
    assert!(last < three_quarters, "{last} nats per token over the last ten steps, not below {three_quarters}");
}

#[test]
fn memory_is_foreseen_within_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let cache = made_up_cache(folder.path(), 8, 16, 18, 3);
    for fused in ["true", "false"] {
        let (run, fused) = (folder.path().join(fused), format!("train.fused={fused}"));
        let arguments = arguments(&cache, &run, &["max_steps=1", "batch_size=8"]);
        let larger = ["--set", "model.dim=192", "--set", "model.block_size=256", "--set", &fused];
        let output = tokengrid().args(&arguments).args(larger).arg("--json").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("memory: ") && told.contains("at batch size 8"), "{told}");
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let Some(peak) = made["memory_bytes_peak"].as_f64() else {
            tokengrid_test_support::skip_anywhere("this system does not tell how large a process was");
            return;
        };
        let share = made["memory_bytes_foreseen"].as_f64().unwrap() / peak;
        assert!((0.75..1.33).contains(&share), "{fused}: {share} of {peak}");
    }
}

#[test]
fn classes_and_grid_come_from_the_cache_and_sizes_beyond_the_machine_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (made_up_cache(folder.path(), 6, 4, 18, 3), folder.path().join("run"));
    let fixed = ["train", "ar", "--cache", text(&cache), "--out", text(&run), "--device", "cpu", "--set"];
    let printed = json(&[&fixed[..], &["model.preset=B", "--print-config"]].concat());
    assert_eq!((&printed["model"]["class_num"], &printed["model"]["block_size"]), (&3.into(), &16.into()));
    for (setting, key) in [
        ("train.batch_size=1000000000", "train.batch_size"),
        ("train.batch_size=1000000", "train.batch_size"),
        ("train.grad_accum=1000000000", "train.grad_accum"),
        ("model.dim=16777216", "model.dim"),
        ("model.spatial_n_layer=16777216", "model.spatial_n_layer"),
    ] {
        let message = fails(&[&fixed[..], &[setting]].concat(), 2);
        assert!(message.contains(key), "{setting}: {message}");
    }
    let source = repository("data/photos");
    let stage_i = ["train", "tokenizer", "--data", text(&source), "--out", text(&run), "--device", "cpu", "--set"];
    for setting in ["train.batch_size=1000000000", "train.batch_size=65536"] {
        assert!(fails(&[&stage_i[..], &[setting]].concat(), 2).contains("train.batch_size"));
    }
    assert!(!run.exists(), "nothing is begun");
}
