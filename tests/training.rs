//! What every training run has, as a user meets it: configurations, event files, pictures, kills, divergence.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, repository, sorted, text, tokengrid};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokengrid_model::{Params, Variant, Weights};
use tokengrid_test_support::{golden, golden_json};
use tokengrid_train::run::save_safetensors;

fn cache(folder: &Path) -> PathBuf {
    let out = folder.join("cache");
    let source = photos(folder, 3, 2);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "64", "--out", text(&out)]);
    out
}

/// A model that trains in seconds, and what differs from it.
fn arguments(cache: &Path, out: &Path, settings: &[&str]) -> Vec<String> {
    let model =
        ["preset=tiny", "dim=32", "n_head=2", "class_num=3", "block_size=16", "spatial_n_layer=2", "ffn_dropout=0.1"];
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(out), "--threads", "1", "--device", "cpu"];
    let settings = model.iter().map(|key| format!("model.{key}")).chain(settings.iter().map(|s| format!("train.{s}")));
    let settings = settings.flat_map(|setting| ["--set".to_string(), setting]);
    fixed.iter().map(|s| s.to_string()).chain(settings).collect()
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn names(folder: &Path) -> Vec<String> {
    sorted(folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn rows(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn printed(arguments: &[&str]) -> (String, String) {
    let output = tokengrid().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

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
fn a_yaml_file_of_the_reference_is_converted_and_says_what_it_leaves_out() {
    let yaml = repository("train/tests/fixtures/reference_ar.yaml");
    let (config, notes) = printed(&["train", "ar", "--config", text(&yaml), "--print-config"]);
    assert!(config.contains("dim = 128") && config.contains("warmup_epochs = 3"), "{config}");
    assert!(notes.contains("reference_ar.yaml, not honoured: trainer.devices = 4: "), "{notes}");
    let message = fails(&["train", "tokenizer", "--config", text(&yaml)], 2);
    assert!(message.contains("use `train ar`"), "{message}");
}

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
    // Three classes of four images of 64 pixels, with gaps of 4.
    assert_eq!((&png[16..20], &png[20..24]), (&268u32.to_be_bytes()[..], &200u32.to_be_bytes()[..]));
    assert_eq!(names(&run.join("checkpoints")), ["latest", "step-00000004", "step-00000006"]);
    let events: Vec<_> = sorted(&run).into_iter().filter(|path| text(path).contains("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1);
    let bytes = std::fs::read(&events[0]).unwrap();
    let count = |tag: &[u8]| bytes.windows(tag.len()).filter(|window| *window == tag).count();
    assert_eq!((count(b"train/grad_norm"), count(b"data_wait_fraction"), count(b"\x89PNG")), (6, 6, 2));

    // Pictures are looked at; they must not change what is trained.
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

/// Rows without what depends on the machine's mood.
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
            .chain(keys(&["train.grad_clip"], &["nan", "0.0", "-1.0"]))
            .chain(keys(
                &["model.token_drop", "model.resid_dropout", "model.ffn_dropout", "model.class_dropout"],
                below_zero,
            ));
    let tokenizer = keys(&["train.lr", "train.epochs", "train.ema_decay", "train.lr_end"], below_zero)
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

/// The small tokenizer with other weights.
fn other_tokenizer(folder: &Path) -> PathBuf {
    let tiny = tokengrid_model::tiny::open_named("tiny".as_ref()).unwrap();
    let params = tiny.tokenizer_params(Variant::Raw).unwrap();
    let params: Params = params.iter().map(|(name, tensor)| (name.to_string(), tensor * 1.01)).collect();
    let path = folder.join("other.safetensors");
    save_safetensors(&path, params.iter(), Default::default()).unwrap();
    path
}

#[test]
fn a_loss_on_another_tokenizers_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run, other) = (cache(folder.path()), folder.path().join("run"), folder.path().join("other"));
    let (photos, tokenizer) = (folder.path().join("photos"), other_tokenizer(folder.path()));
    json(&["tokenize", text(&photos), "--tokenizer", text(&tokenizer), "--size", "64", "--out", text(&other)]);
    let arguments = arguments(&cache, &run, &["max_steps=1"]);
    let message = fails(&[&strs(&arguments)[..], &["--val-cache", text(&other)]].concat(), 1);
    assert!(message.contains("the tokenizer is") && message.contains("other"), "{message}");
    json(&strs(&arguments));
    let eval = |cache: &Path| ["eval", "ar", "--checkpoint", text(&run), "--cache", text(cache)].map(String::from);
    let message = fails(&eval(&other).each_ref().map(String::as_str), 1);
    assert!(message.contains("the tokenizer is"), "{message}");
    json(&eval(&cache).each_ref().map(String::as_str));
}

/// An array file of little-endian integers of 8 bytes.
fn npy(path: &Path, shape: &str, values: impl Iterator<Item = i64>) {
    let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({shape}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.for_each(|value| bytes.extend(value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A cache of `images` grids whose tokens of `bits` bits follow a rule, of `classes` classes.
fn made_up_cache(folder: &Path, images: i64, side: i64, bits: u32, classes: i64) -> PathBuf {
    let (tokens, labels, out) = (folder.join("t.npy"), folder.join("l.npy"), folder.join("made-up"));
    let token = move |i: i64| (i * 40_503 + i / 7 * 65_537) % (1 << bits);
    npy(&tokens, &format!("{images}, {}", side * side), (0..images * side * side).map(token));
    npy(&labels, &format!("{images},"), (0..images).map(|i| i % classes));
    let (grid, bits) = (format!("{side}x{side}"), bits.to_string());
    let fixed = ["cache", "import", "--tokens", text(&tokens), "--labels", text(&labels), "--grid", &grid];
    json(&[&fixed[..], &["--bits", &bits, "--out", text(&out)]].concat());
    out
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
    assert!(message.contains("bits a token is 14") && message.contains("factorized_bits"), "{message}");
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
fn the_bundled_photographs_are_learnt_below_two_thirds_of_their_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (folder.path().join("cache"), folder.path().join("run"));
    let source = repository("data/photos");
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "128", "--out", text(&cache)]);
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
    assert!(last < 8.3, "{last} nats a token over the last ten steps, not two thirds of 12.48");
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
            println!("skipped: this system does not tell how large a process was");
            return;
        };
        let share = made["memory_bytes_foreseen"].as_f64().unwrap() / peak;
        assert!((0.75..1.33).contains(&share), "{fused}: {share} of {peak}");
    }
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
