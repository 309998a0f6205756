//! The commands about checkpoints: contents, copies under other names, wrong kinds of file; and reconstructions.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, repository, sorted, text, tokengrid};
use std::path::{Path, PathBuf};
use tokengrid_model::ar::{ArWeights, ModelConfig, initial_params};
use tokengrid_model::{Variant, Weights};
use tokengrid_test_support::golden;

/// A checkpoint of a training run: five heads, which the shapes do not tell.
fn run_checkpoint(folder: &Path) -> (PathBuf, ModelConfig) {
    let model = ModelConfig {
        dim: 40,
        n_head: 5,
        spatial_n_layer: 2,
        factorized_n_layer: 1,
        block_size: 16,
        class_num: 3,
        ..ModelConfig::default()
    };
    let params = initial_params(&model, 7);
    let file = folder.join("model.safetensors");
    tokengrid_train::run::save_safetensors(&file, params.iter(), Default::default()).unwrap();
    let config =
        "[model]\ndim = 40\nn_head = 5\nspatial_n_layer = 2\nfactorized_n_layer = 1\nblock_size = 16\nclass_num = 3\n";
    std::fs::write(folder.join("config.toml"), config).unwrap();
    (file, model)
}

/// Same names, kinds and bits.
#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (Weights::open(a).unwrap(), Weights::open(b).unwrap());
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    for name in a.names() {
        let (x, y) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
        assert!(x.kind() == y.kind() && x.equal(&y), "{name}");
    }
}

#[test]
fn info_tells_the_architecture_the_variants_and_the_progress() {
    let info = json(&["weights", "info", text(&golden("tok_f4.ckpt"))]);
    assert_eq!(info["architecture"]["tokenizer"]["ch_mult"], serde_json::json!([1, 1, 2]));
    assert_eq!(info["architecture"]["variants"], serde_json::json!(["raw", "ema"]));
    assert_eq!(info["architecture"]["grids"][1], serde_json::json!([256, [64, 64]]));
    assert_eq!(info["unexplained"], serde_json::json!([]));
    assert_eq!(info["dtypes"]["encoder.conv_in.weight"], "float32");
    assert!(info["skipped"].as_u64().unwrap() > 0, "discriminator and optimizer");
    assert!(info["training"]["global_step"].is_string(), "{}", info["training"]);
    let info = json(&["weights", "info", text(&golden("ar.ckpt")), "--n-head", "4"]);
    assert_eq!(info["ar"]["model"]["n_head"], 4);
    assert_eq!(info["architecture"]["tokenizer"]["z_channels"], 18, "the frozen tokenizer");
    let output = tokengrid().args(["weights", "info", "tiny"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("variants: raw\n") && stdout.contains("32 x 32 at 256 pixels"), "{stdout}");
}

#[test]
fn a_model_goes_to_the_reference_and_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = run_checkpoint(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (reference, back) = (elsewhere.path().join("reference.safetensors"), elsewhere.path().join("back.safetensors"));
    json(&["weights", "convert", text(&model), text(&reference), "--to", "reference", "--tokenizer", "tiny"]);
    let exported = Weights::open(&reference).unwrap();
    assert!(exported.contains("transformer.spatial_blocks.1.attention.wqkv.weight"));
    assert!(exported.contains("first_stage_model.encoder.conv_in.weight"));
    assert_eq!(exported.tokenizer_params(Variant::Raw).unwrap().len(), json_len(&["weights", "info", "tiny"]));
    assert_eq!(ArWeights::open(&reference, None).unwrap().config.n_head, 5, "heads go along");
    json(&["weights", "convert", text(&reference), text(&back), "--to", "tokengrid"]);
    assert_same(&model, &back);
    assert_eq!(ArWeights::open(&back, None).unwrap().config, config);
}

fn json_len(arguments: &[&str]) -> usize {
    json(arguments)["tensors"].as_object().unwrap().len()
}

#[test]
fn a_published_model_comes_in_and_goes_out_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let published = golden("ar.ckpt");
    let (own, out, all) = (path("own.safetensors"), path("out.safetensors"), path("all.safetensors"));
    json(&["weights", "convert", text(&published), text(&own), "--to", "tokengrid", "--n-head", "4"]);
    json(&["weights", "convert", text(&own), text(&out), "--to", "reference", "--tokenizer", text(&published)]);
    json(&["weights", "convert", text(&published), text(&all)]);
    assert_same(&out, &all);
}

#[test]
fn variants_and_half_precision() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, ema) = (folder.path().join("raw.safetensors"), folder.path().join("ema.safetensors"));
    let checkpoint = golden("tok_f4.ckpt");
    json(&["weights", "convert", text(&checkpoint), text(&raw), "--variant", "raw", "--half"]);
    json(&["weights", "convert", text(&checkpoint), text(&ema), "--variant", "ema"]);
    let (raw, ema) = (Weights::open(&raw).unwrap(), Weights::open(&ema).unwrap());
    assert!(raw.entries().all(|(_, entry)| entry.kind == tch::Kind::Half));
    let stored = Weights::open(&checkpoint).unwrap().tokenizer_params(Variant::Ema).unwrap();
    assert_eq!(ema.names().count(), stored.len());
    assert!(stored.iter().all(|(name, tensor)| ema.tensor(name).unwrap().equal(tensor)));
}

#[test]
fn wrong_kinds_of_file_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _) = run_checkpoint(folder.path());
    let out = folder.path().join("out");
    let unknown = folder.path().join("unknown.safetensors");
    let tensors: Vec<(String, tch::Tensor)> =
        (0..12).map(|i| (format!("features.{i:02}.weight"), tch::Tensor::from(1.0f32))).collect();
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    tokengrid_train::run::save_safetensors(&unknown, tensors, Default::default()).unwrap();
    let source = repository("data/photos");
    let tokenize = |weights: &Path| {
        fails(&["tokenize", text(&source), "--limit", "1", "--tokenizer", text(weights), "--out", text(&out)], 1)
    };
    let message = tokenize(&model);
    assert!(message.contains("an autoregressive model without its tokenizer"), "{message}");
    let message = tokenize(&unknown);
    assert!(message.contains("12 tensors") && message.contains("features.09.weight, ..."), "{message}");
    let checkpoint = golden("tok_f4.ckpt");
    let message = fails(
        &["sample", "--checkpoint", text(&checkpoint), "--tokenizer", "tiny", "--classes", "0", "--out", text(&out)],
        1,
    );
    assert!(message.contains("a tokenizer and no autoregressive model"), "{message}");
    let message = fails(&["weights", "convert", text(&checkpoint), text(&model)], 1);
    assert!(message.contains("exists"), "{message}");
    let message = fails(&["weights", "convert", text(&checkpoint), text(&out), "--tokenizer", "tiny"], 2);
    assert!(message.contains("--to reference"), "{message}");
    assert!(!out.exists());
}

/// Python with PyTorch reads what we write. Needs `TOKENGRID_PYTHON`.
#[test]
fn pytorch_reads_an_exported_model() {
    let python = std::env::var("TOKENGRID_PYTHON").unwrap_or("python3".into());
    let run = |code: &str| std::process::Command::new(&python).args(["-c", code]).output();
    if !run("import torch, safetensors.torch").is_ok_and(|output| output.status.success()) {
        // Too large to be installed for one test.
        tokengrid_test_support::skip_anywhere(&format!("{python} has no torch and safetensors (TOKENGRID_PYTHON)"));
        return;
    }
    let run = |code: &str| run(code).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    json(&["weights", "convert", text(&golden("ar.ckpt")), text(&out), "--to", "reference", "--n-head", "4"]);
    let output = run(&format!(
        "import torch; from safetensors.torch import load_file\n\
         ours = load_file({:?})\n\
         theirs = torch.load({:?}, map_location='cpu', weights_only=True)['state_dict']\n\
         theirs = {{k: v for k, v in theirs.items() if k.startswith('transformer.')}}\n\
         assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()\n\
         assert all(torch.equal(ours[k], theirs[k]) for k in ours)",
        text(&out),
        text(&golden("ar.ckpt"))
    ));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn reconstructions_of_a_folder_at_original_size_with_a_bad_image_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let source = sorted(&photos(folder.path(), 1, 2)).remove(0);
    std::fs::write(source.join("zz-broken.jpg"), b"no picture").unwrap();
    let out = folder.path().join("out");
    let fixed = ["reconstruct", text(&source), "--tokenizer", "tiny", "--out", text(&out)];
    let original = [&fixed[..], &["--size", "original", "--json"]].concat();
    let output = tokengrid().args(&original).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "one image is bad");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["bad"][0]["image"].as_str().unwrap().ends_with("zz-broken.jpg"));
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for image in images {
        let [size, grid] = ["size", "grid"].map(|key| {
            let pair = image[key].as_array().unwrap();
            [pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap()]
        });
        assert_eq!(grid, size.map(|side| side.div_ceil(8)), "padded to whole tokens");
        assert_eq!(image["tokens"].as_u64().unwrap(), grid[0] * grid[1]);
        assert!(image["psnr"].as_f64().unwrap() > 12.0, "{image}");
        let png = std::fs::read(image["picture"].as_str().unwrap()).unwrap();
        let (width, height) = (u32::from_be_bytes(png[16..20].try_into().unwrap()), &png[20..24]);
        assert_eq!(u64::from(width), 2 * size[1] + 4, "side by side");
        assert_eq!(u64::from(u32::from_be_bytes(height.try_into().unwrap())), size[0]);
    }
    let message = fails(&original, 1);
    assert!(message.contains("exists") && message.contains("--overwrite"), "{message}");
    let message = fails(&[&fixed[..], &["--size", "all"]].concat(), 2);
    assert!(message.contains("`original`"), "{message}");
}
