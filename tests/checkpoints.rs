//! Checkpoints that are copied away from their run, come from other programs, or are damaged: settings that they do not record
//! are requested and never guessed, and hostile files are refused.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, repository, sorted, text, tokengrid};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use tokengrid_model::ar::{ModelConfig, initial_params};
use tokengrid_model::{Params, Variant, Weights, tiny};
use tokengrid_test_support::golden;
use tokengrid_test_support::torch_save::{Saved, torch_save};
use tokengrid_train::run::save_safetensors;

const SIDE: i64 = 4;
const CLASSES: i64 = 3;

/// An array file of int32.
fn npy(path: &Path, shape: &str, values: impl Iterator<Item = i32>) {
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({shape}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.flat_map(i32::to_le_bytes));
    std::fs::write(path, bytes).unwrap();
}

/// A cache of grids of `side` x `side` arbitrary tokens.
fn cache(folder: &Path, side: i64) -> PathBuf {
    let (tokens, labels, out) = (folder.join("t.npy"), folder.join("l.npy"), folder.join(format!("cache-{side}")));
    let count = (6 * side * side) as i32;
    npy(&tokens, &format!("6, {}", side * side), (0..count).map(|i| i.wrapping_mul(40_503) & 0x3_ffff));
    npy(&labels, "6,", (0..6).map(|i| i % CLASSES as i32));
    let (tokens, labels, grid) = (text(&tokens), text(&labels), format!("{side}x{side}"));
    json(&["cache", "import", "--tokens", tokens, "--labels", labels, "--grid", &grid, "--out", text(&out)]);
    out
}

fn model() -> ModelConfig {
    ModelConfig {
        dim: 32,
        n_head: 2,
        spatial_n_layer: 2,
        factorized_n_layer: 1,
        block_size: SIDE * SIDE,
        class_num: CLASSES,
        ..ModelConfig::default()
    }
}

fn save(path: &Path, params: &Params) {
    save_safetensors(path, params.iter(), Default::default()).unwrap();
}

/// A file of a model's tensors without metadata.
fn bare(folder: &Path) -> PathBuf {
    let path = folder.join("bare.safetensors");
    save(&path, &initial_params(&model(), 5));
    path
}

/// A run of one step on `cache`.
fn run(folder: &Path, cache: &Path) -> PathBuf {
    let out = folder.join("run");
    let m = model();
    let settings = [
        format!("model.dim={}", m.dim),
        format!("model.n_head={}", m.n_head),
        format!("model.spatial_n_layer={}", m.spatial_n_layer),
        format!("model.factorized_n_layer={}", m.factorized_n_layer),
        format!("model.block_size={}", m.block_size),
        format!("model.class_num={}", m.class_num),
        "train.max_steps=3".into(),
        "train.warmup_steps=1".into(),
        "train.peak_lr=0.01".into(),
        "train.batch_size=2".into(),
    ];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(&out), "--threads", "1", "--device", "cpu"];
    json(&[&fixed[..], &set].concat());
    out
}

fn info(path: &Path) -> Value {
    json(&["weights", "info", text(path)])
}

fn loss(checkpoint: &Path, cache: &Path, more: &[&str]) -> f64 {
    let fixed = ["eval", "ar", "--checkpoint", text(checkpoint), "--cache", text(cache), "--threads", "1"];
    json(&[&fixed[..], more].concat())["loss"].as_f64().unwrap()
}

fn sample<'a>(checkpoint: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let fixed =
        ["sample", "--checkpoint", text(checkpoint), "--tokenizer", "tiny", "--threads", "1", "--out", text(out)];
    [&fixed[..], more].concat()
}

#[test]
fn a_run_s_file_is_the_same_model_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), SIDE);
    let run = run(folder.path(), &cache);
    let (copy, converted) = (folder.path().join("copy.safetensors"), folder.path().join("converted.safetensors"));
    std::fs::copy(run.join("checkpoints/latest/model.safetensors"), &copy).unwrap();
    let made = &info(&run)["ar"]["model"];
    assert_eq!((made["n_head"].as_i64(), made["block_size"].as_i64()), (Some(2), Some(SIDE * SIDE)));
    assert_eq!(&info(&copy)["ar"]["model"], made, "rates included");
    assert_eq!(info(&copy)["problems"], object!([]));
    assert_eq!(loss(&copy, &cache, &[]), loss(&run, &cache, &[]));
    json(&["weights", "convert", text(&copy), text(&converted)]);
    assert_eq!(&info(&converted)["ar"]["model"], made, "a copy of a copy");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    json(&sample(&copy, &a, &["--classes", "1"]));
    json(&sample(&run, &b, &["--classes", "1"]));
    let tokens = |out: &Path| std::fs::read(out.join("tokens/0001/00000.npy")).unwrap();
    assert_eq!(tokens(&a), tokens(&b));
    // The fingerprint of its training cache is copied, too.
    let said = |file: &Path| Weights::open(file).unwrap().fact("tokengrid.tokenizer").map(str::to_string);
    assert_eq!(said(&converted), said(&copy));
    let contradictions = [
        ("--n-head", "4", "4 heads, but the model has 2"),
        ("--grid", "8x8", "64 tokens per image, but the model has 16"),
    ];
    for (flag, typed, what) in contradictions {
        let message = fails(&sample(&copy, &a, &[flag, typed]), 2);
        assert!(message.contains(flag) && message.contains(what), "{message}");
    }
}

#[test]
fn a_bare_file_is_asked_about_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let (bare, out) = (bare(folder.path()), folder.path().join("out"));
    let (cache_4, cache_6) = (cache(folder.path(), SIDE), cache(folder.path(), 6));
    let told = info(&bare);
    assert!(told["ar"]["model"]["n_head"].is_null() && told["ar"]["model"]["block_size"].is_null(), "{told}");
    assert_eq!(told["ar"]["model"]["dim"], 32);
    assert!(told["problems"][0].as_str().unwrap().contains("give --n-head N and --grid HxW"), "{told}");

    let both = fails(&sample(&bare, &out, &[]), 2);
    assert!(both.contains("--n-head N and --grid HxW"), "{both}");
    let grid = fails(&sample(&bare, &out, &["--n-head", "2"]), 2);
    assert!(grid.contains("give --grid HxW") && !grid.contains("--n-head N"), "{grid}");
    let oblong = fails(&sample(&bare, &out, &["--n-head", "2", "--grid", "4x6"]), 2);
    assert!(oblong.contains("4x6") && oblong.contains("square"), "{oblong}");
    for side in [4, 6] {
        let (out, grid) = (folder.path().join(format!("out-{side}")), format!("{side}x{side}"));
        json(&sample(&bare, &out, &["--n-head", "2", "--grid", &grid, "--classes", "0"]));
        let png = std::fs::read(out.join("images/0000/00000.png")).unwrap();
        assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 8 * side);
    }

    let message = fails(&["eval", "ar", "--checkpoint", text(&bare), "--cache", text(&cache_4)], 2);
    assert!(message.contains("give --n-head N"), "{message}");
    // The grid is that of the cache.
    assert!(loss(&bare, &cache_4, &["--n-head", "2"]) > 0.0 && loss(&bare, &cache_6, &["--n-head", "2"]) > 0.0);
}

#[test]
fn converting_makes_no_answer_up() {
    let folder = tempfile::tempdir().unwrap();
    let bare = bare(folder.path());
    let path = |name: &str| folder.path().join(name);
    let message = fails(&["weights", "convert", text(&bare), text(&path("a")), "--to", "reference"], 2);
    assert!(message.contains("give --n-head N") && !path("a").exists(), "{message}");
    let convert = |name: &str, more: &[&str]| {
        let out = path(name);
        let output = tokengrid().args(["weights", "convert", text(&bare), text(&out)]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (info(&out)["ar"]["model"].clone(), String::from_utf8(output.stderr).unwrap())
    };
    let (model, said) = convert("heads", &["--to", "reference", "--n-head", "2"]);
    assert!(said.contains("give --grid HxW"), "{said}");
    assert_eq!((model["n_head"].as_i64(), model["block_size"].as_i64()), (Some(2), None));
    let (model, said) = convert("copy", &[]);
    assert!(said.contains("--n-head N and --grid HxW") && model["n_head"].is_null(), "{said}");
    let (model, said) = convert("all", &["--to", "tokengrid", "--n-head", "2", "--grid", "4x4"]);
    assert_eq!((model["n_head"].as_i64(), model["block_size"].as_i64(), said.as_str()), (Some(2), Some(16), ""));
    json(&sample(&path("all"), &path("out"), &["--classes", "0"]));
}

#[test]
fn a_config_of_something_else_beside_the_file_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let bare = bare(folder.path());
    let beside = folder.path().join("config.toml");
    for config in ["[model]\ndim = 64\nn_head = 4\n", "[package]\nname = \"x\"\n", "no TOML"] {
        std::fs::write(&beside, config).unwrap();
        let told = info(&bare);
        assert!(told["ar"]["model"]["n_head"].is_null(), "{config}: {told}");
        assert!(told["problems"][0].as_str().unwrap().contains("config.toml"), "{config}: {told}");
    }
    let own =
        "[model]\ndim = 32\nn_head = 2\nspatial_n_layer = 2\nfactorized_n_layer = 1\nblock_size = 16\nclass_num = 3\n";
    std::fs::write(&beside, own).unwrap();
    assert_eq!(info(&bare)["ar"]["model"]["n_head"], 2);
}

/// A safetensors file of these tensors, bytes that are all zero and take no place on the disk.
fn hollow(path: &Path, tensors: &[(String, Vec<i64>)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<i64>();
        header.insert(name.clone(), object!({ "dtype": "U8", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(8 + header.len() as u64 + end as u64).unwrap();
}

#[test]
fn the_published_sizes_need_no_flags() {
    let folder = tempfile::tempdir().unwrap();
    for (name, dim, n_head, layers) in [("B", 1024, 16, (24, 2)), ("L", 1280, 20, (36, 3)), ("XL", 1536, 24, (48, 4))] {
        let model = ModelConfig {
            dim,
            n_head,
            spatial_n_layer: layers.0,
            factorized_n_layer: layers.1,
            ..ModelConfig::default()
        };
        let published: Vec<_> =
            model.tensors().into_iter().map(|(name, shape)| (format!("transformer.{name}"), shape)).collect();
        let path = folder.path().join(format!("AR_256_{name}.safetensors"));
        hollow(&path, &published);
        let told = info(&path);
        assert_eq!(told["ar"]["model"]["n_head"], n_head, "{name}");
        assert_eq!(told["ar"]["model"]["block_size"], 256, "{name}");
        assert_eq!(told["problems"], object!([]), "{name}");
        // The same sizes with other classes are not the published model.
        let other = ModelConfig { class_num: 100, ..model };
        let own: Vec<_> =
            other.tensors().into_iter().map(|(name, shape)| (format!("transformer.{name}"), shape)).collect();
        hollow(&path, &own);
        assert!(info(&path)["ar"]["model"]["n_head"].is_null(), "{name}");
    }
}

#[test]
fn metadata_that_lie_about_the_tensors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let params = initial_params(&model(), 5);
    for (lie, what) in [
        (object!({ "dim": 32, "n_head": 2, "spatial_n_layer": 16_777_216 }), "spatial_n_layer"),
        (object!({ "dim": 64 }), "dim"),
        (object!({ "dim": "wide" }), "wide"),
        (object!([1, 2]), "tokengrid.model"),
        (object!("{"), "tokengrid.model"),
    ] {
        let metadata = [("tokengrid.model".to_string(), lie.to_string())].into();
        save_safetensors(&path, params.iter(), metadata).unwrap();
        let message = fails(&sample(&path, &folder.path().join("out"), &["--n-head", "2", "--grid", "4x4"]), 1);
        assert!(message.contains("metadata") && message.contains(what), "{lie}: {message}");
    }
}

fn tiny_params() -> Params {
    tiny::open_tokenizer(Path::new("tiny")).unwrap().tokenizer_params(Variant::Raw).unwrap()
}

#[test]
fn the_built_in_tokenizer_is_converted_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (all, raw) = (folder.path().join("all.safetensors"), folder.path().join("raw.safetensors"));
    json(&["weights", "convert", "tiny", text(&all)]);
    json(&["weights", "convert", "tiny", text(&raw), "--variant", "raw"]);
    for file in [&all, &raw] {
        let copy = Weights::open(file).unwrap();
        assert!(tiny_params().iter().all(|(name, tensor)| copy.tensor(name).unwrap().equal(tensor)));
        assert_eq!(copy.fact("format"), Some("pt"));
    }
}

#[test]
fn weights_that_a_training_has_spoilt_are_refused_wherever_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let cache = cache(folder.path(), SIDE);
    let params = tiny_params();
    let _ = params.get("encoder.conv_in.weight").view([-1]).narrow(0, 3, 2).fill_(f64::NAN);
    save(&path("tokenizer.safetensors"), &params);
    let params = initial_params(&model(), 5);
    let _ = params.get("norm.weight").get(7).fill_(f64::INFINITY);
    save(&path("ar.safetensors"), &params);
    let (tokenizer, ar, out) = (path("tokenizer.safetensors"), path("ar.safetensors"), path("out"));
    let (tokenizer, ar, cache, out) = (text(&tokenizer), text(&ar), text(&cache), text(&out));
    let other_out = path("other-out");
    let other_out = text(&other_out);
    let (photos, init) = (repository("data/photos"), format!("train.init_from={ar}"));
    let init_tokenizer = format!("train.init_from={tokenizer}");
    let photo = sorted(&sorted(&photos).remove(0)).remove(0);
    let (photos, photo) = (text(&photos), text(&photo));
    let known = ["--n-head", "2", "--grid", "4x4"];
    let settings: Vec<String> =
        ["dim=32", "n_head=2", "spatial_n_layer=2", "factorized_n_layer=1", "block_size=16", "class_num=3"]
            .map(|setting| format!("model.{setting}"))
            .to_vec();
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    for command in [
        &["tokenize", photos, "--limit", "1", "--tokenizer", tokenizer, "--out", out][..],
        &["reconstruct", photo, "--tokenizer", tokenizer, "--out", out],
        &["eval", "reconstruction", photos, "--tokenizer", tokenizer, "--limit", "1"],
        &["sample", "--checkpoint", ar, "--tokenizer", "tiny", "--out", out, "--n-head", "2", "--grid", "4x4"],
        &["eval", "ar", "--checkpoint", ar, "--cache", cache, "--n-head", "2"],
        &["weights", "convert", ar, out],
        &[&["weights", "convert", ar, out, "--to", "reference"][..], &known].concat()[..],
        &["weights", "convert", tokenizer, out, "--variant", "raw"],
        &[&["train", "ar", "--cache", cache, "--out", out, "--set", &init][..], &settings].concat()[..],
        &[
            "train",
            "tokenizer",
            "--data",
            photos,
            "--out",
            other_out,
            "--set",
            "model.preset=tiny",
            "--set",
            &init_tokenizer,
        ],
    ] {
        let message = fails(command, 1);
        let found = if command.contains(&tokenizer) || command.contains(&init_tokenizer.as_str()) {
            ("2 of ", "`encoder.conv_in.weight`")
        } else {
            ("1 of 32 ", "`norm.weight`")
        };
        assert!(message.contains(found.0) && message.contains(found.1), "{command:?}: {message}");
        assert!(message.contains("not finite"), "{command:?}: {message}");
    }
    let problems = info(Path::new(ar))["problems"].to_string();
    assert!(problems.contains("1 of 32 values of tensor `norm.weight`"), "{problems}");
}

#[test]
fn half_precision_that_would_overflow_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (wide, out) = (folder.path().join("wide.safetensors"), folder.path().join("out.safetensors"));
    let params = initial_params(&model(), 5);
    let _ = params.get("norm.weight").get(7).fill_(65536.0);
    save(&wide, &params);
    let message = fails(&["weights", "convert", text(&wide), text(&out), "--half"], 1);
    assert!(message.contains("`norm.weight`") && message.contains("--half") && !out.exists(), "{message}");
}

#[test]
fn weights_of_other_training_programs_are_used_and_spoken_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let state = |factor: f64| {
        let params = tiny_params();
        let tensors = params.iter().map(|(name, tensor)| {
            let values = Vec::try_from((tensor.to_kind(tch::Kind::Float) * factor).reshape([-1])).unwrap();
            (format!("_orig_mod.{name}"), Saved::Tensor(tensor.size(), values))
        });
        Saved::dict(tensors.collect::<Vec<_>>())
    };
    // The stem of 21 characters is one at which PyTorch's records look like those of an archive with bytes before it.
    let stem = "a".repeat(21);
    let file = path(&format!("{stem}.pt"));
    std::fs::write(&file, torch_save(&stem, &Saved::dict([("model", state(1.0)), ("ema", state(0.5))]))).unwrap();
    for (variant, factor) in [("raw", 1.0), ("ema", 0.5)] {
        let out = path(variant);
        let output =
            tokengrid().args(["weights", "convert", text(&file), text(&out), "--variant", variant]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("`model`") && said.contains("`_orig_mod.`"), "{said}");
        let converted = Weights::open(&out).unwrap();
        let same = |(name, tensor): (&str, &tch::Tensor)| {
            converted.tensor(name).unwrap().equal(&(tensor.to_kind(tch::Kind::Float) * factor))
        };
        assert!(tiny_params().iter().all(same), "{variant}");
    }
    let notes = info(&file)["notes"].to_string();
    assert!(notes.contains("`model`") && notes.contains("`_orig_mod.`") && notes.contains("--variant ema"), "{notes}");
}

#[test]
fn names_out_of_a_file_do_not_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let tensor = tch::Tensor::from(1.0f32);
    let names = ["\u{1b}[2J\u{1b}[31mweight", "line\nbreak", "\u{9b}31m", "\u{202e}txt"];
    let metadata = [("epoch".to_string(), "\u{1b}]0;title\u{7}".to_string())].into();
    save_safetensors(&path, names.map(|name| (name, &tensor)), metadata).unwrap();
    let convert_to = folder.path().join("out");
    for command in [
        &["weights", "info", text(&path)][..],
        &["weights", "convert", text(&path), text(&convert_to), "--variant", "raw"],
        &["sample", "--checkpoint", text(&path), "--tokenizer", "tiny", "--out", text(&convert_to)],
    ] {
        let output = tokengrid().args(command).output().unwrap();
        let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(steers), "{command:?}: {shown:?}");
        assert!(shown.contains("\\u{1b}[2J") && !shown.contains("line\nbreak"), "{command:?}: {shown}");
    }
}

#[test]
fn the_golden_model_is_what_it_was_made_as_only_with_its_numbers() {
    let golden = golden("ar.ckpt");
    let told = json(&["weights", "info", text(&golden), "--n-head", "4", "--grid", "8x8"]);
    assert_eq!(told["ar"]["model"]["block_size"], 64);
    assert_eq!(told["problems"], object!([]));
}
