//! Conversion of files with the reference's key names.

use super::super::{Config, Resolved, Typed, resolve_listing};
use crate::ar::ArConfig;
use crate::tokenizer::TokenizerConfig;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn resolved<C: Config>(file: &Path) -> Result<Resolved<C>, String> {
    resolve_listing(&Typed { file: Some(file), ..Typed::default() }).map_err(|e| e.to_string())
}

#[test]
fn an_autoregressive_configuration_is_converted() {
    let resolved = resolved::<ArConfig>(&fixture("reference_ar.yaml")).unwrap();
    let Resolved { config, not_honoured, elsewhere, global_batch, .. } = resolved;
    let ArConfig { model, train, .. } = &config;
    assert_eq!((model.dim, model.n_head, model.block_size, model.class_num), (128, 4, 64, 10));
    assert_eq!((model.spatial_n_layer, model.factorized_n_layer, model.factorized_bits), (6, 2, [6, 12]));
    assert_eq!((model.token_drop, model.resid_dropout, model.ffn_dropout), (0.05, 0.15, 0.1));
    assert_eq!((train.peak_lr, train.weight_decay, train.grad_clip), (2e-4, 4e-2, 0.5));
    assert_eq!((train.epochs, train.warmup_epochs, train.wp0, train.wpe), (12.0, 3.0, 0.01, 0.2));
    assert_eq!((train.batch_size, train.precision.as_str(), train.seed), (5, "bf16", 42));
    assert_eq!(global_batch, Some(4 * 2 * 5));
    let starts = |lines: &[String], start: &str| lines.iter().any(|line| line.starts_with(start));
    let listed = |start: &str| starts(&not_honoured, start) || starts(&elsewhere, start);
    // Keys that would change the training are listed apart from keys that are set elsewhere.
    for start in [
        "seed_everything = true: ",
        "trainer.precision = 16-mixed",
        "model.init_args.transformer_config.params.novelty",
    ] {
        assert!(starts(&not_honoured, start) && !starts(&elsewhere, start), "{start:?}: {not_honoured:#?}");
    }
    assert!(elsewhere.len() > 2 * not_honoured.len(), "{not_honoured:#?} {elsewhere:#?}");
    for start in [
        "seed_everything = true: ",
        "trainer.devices = 4: ",
        "trainer.num_nodes = 2: ",
        "trainer.precision = 16-mixed: bf16",
        "trainer.callbacks: ",
        "model.init_args.first_stage_config: the tokenizer is that of the cache",
        "model.init_args.transformer_config.params.novelty = 7: there is no such setting",
        "data.init_args.train: ",
    ] {
        assert!(listed(start), "{start:?} is not in {not_honoured:#?}");
    }
    for honoured in
        ["trainer.max_epochs", "model.init_args.wp", "model.init_args.twde", "ckpt_path", "model.class_path"]
    {
        assert!(!listed(honoured), "{honoured}: {not_honoured:#?}");
    }
}

#[test]
fn a_tokenizers_configuration_is_converted_as_far_as_its_keys_exist() {
    let Resolved { config, mut not_honoured, elsewhere, .. } =
        resolved::<TokenizerConfig>(&fixture("reference_tokenizer.yaml")).unwrap();
    not_honoured.extend(elsewhere);
    let TokenizerConfig { model, loss, train, .. } = &config;
    assert_eq!((model.ch, &model.ch_mult, model.num_res_blocks, model.z_channels), (64, &vec![1, 2, 4], 2, 14));
    assert_eq!((loss.codebook_weight, loss.commit_weight), (0.3, 0.15));
    assert_eq!((loss.codebook_enlarge_ratio, loss.codebook_enlarge_steps), (1.0, 500));
    assert_eq!((train.batch_size, train.lr, train.image_size), (6, 2e-4, 96));
    assert_eq!((train.seed, train.log_every), (7, 50));
    let listed = |start: &str| not_honoured.iter().any(|line| line.starts_with(start));
    assert!(!listed("model.init_args.batch_maximization_weight"), "{not_honoured:#?}");
    assert!(listed("trainer.check_val_every_n_epoch = 2: "), "{not_honoured:#?}");
    // Every key is either honoured or listed.
    let table: toml::Table = toml::to_string(&config).unwrap().parse().unwrap();
    for (leaf, key, value) in [
        ("model.init_args.lossconfig.params.disc_start", "loss.disc_start", "100"),
        ("model.init_args.lossconfig.params.gen_loss_weight", "loss.gen_loss_weight", "0.2"),
        ("model.init_args.lossconfig.params.lecam_loss_weight", "loss.lecam_loss_weight", "0.01"),
        ("model.init_args.lr_drop_epoch", "train.lr_drop_epochs", "[5, 7]"),
        ("trainer.max_epochs", "train.epochs", "9"),
        ("trainer.precision", "train.precision", "\"bf16\""),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        match table[section].get(name) {
            Some(now) => assert!(now.to_string().starts_with(value), "{key} = {now}"),
            None => assert!(listed(leaf), "{leaf}: {not_honoured:#?}"),
        }
    }
}

#[test]
fn a_file_of_another_kind_is_refused_with_the_command_that_takes_it() {
    let error = resolved::<ArConfig>(&fixture("reference_tokenizer.yaml")).unwrap_err();
    assert!(error.contains("use `train tokenizer`"), "{error}");
    let error = resolved::<TokenizerConfig>(&fixture("reference_ar.yaml")).unwrap_err();
    assert!(error.contains("use `train ar`"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        let path = folder.path().join("x.yml");
        std::fs::write(&path, text).unwrap();
        resolved::<ArConfig>(&path).unwrap_err()
    };
    for (text, part) in [
        ("a: [1", "x.yml: "),
        ("dim: 3", "no `model.class_path`"),
        ("model:\n  class_path: src.IBQ.models.cond_transformer_gpt.Net2NetTransformer", "no model of Open-MAGVIT2"),
        ("model:\n  class_path: src.Open_MAGVIT2.models.video.Other", "a model that is not here"),
        ("", "expected one"),
        ("1: 2", "not text"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let class = "model:\n  class_path: src.Open_MAGVIT2.models.cond_transformer_gpt.Net2NetTransformer\n  init_args:\n";
    let class = format!("{class}    token_factorization: True\n");
    let error = refused(&format!("{class}    learning_rate: fast\n"));
    assert!(error.contains("x.yml") && error.contains("invalid type"), "{error}");
    let error = refused(&format!(
        "{class}    learning_rate: 1e-4\n    transformer_config:\n      params:\n        n_head: 7\n"
    ));
    assert!(error.contains("model.n_head"), "{error}");
}

/// A fixture with parts of its text replaced, under its own name.
fn changed(folder: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(fixture(name)).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{name} has no {old:?}");
        text = text.replace(old, new);
    }
    let path = folder.join("changed.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn configurations_of_other_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["reference_pretrain.yaml", "reference_video.yaml"] {
        let error = resolved::<TokenizerConfig>(&fixture(name)).unwrap_err();
        assert!(error.contains("cannot be trained here") && error.contains("VQModel"), "{name}: {error}");
        assert!(resolved::<ArConfig>(&fixture(name)).is_err(), "{name}");
    }
    let (ar, tokenizer) = ("reference_ar.yaml", "reference_tokenizer.yaml");
    for (name, old, new, part) in [
        (ar, "src.Open_MAGVIT2.models", "src.IBQ.models", "no model of Open-MAGVIT2"),
        (tokenizer, "src.Open_MAGVIT2.models.lfqgan.VQModel", "src.IBQ.models.ibqgan.IBQ", "no model of Open-MAGVIT2"),
        (tokenizer, "models.lfqgan.VQModel", "models.other_lfqgan.VQModel", "not here"),
        (tokenizer, "use_ema: True", "sche_type: cos", "`model.init_args.sche_type` is cos"),
        (tokenizer, "use_ema: True", "lr_drop_iter: [8, 9]", "`model.init_args.lr_drop_iter` is [8, 9]"),
        (tokenizer, "resume_lr:", "resume_lr: 1e-5", "resume_lr"),
        (tokenizer, "disc_weight: 0.8", "use_blur: True", "use_blur` is true: only false"),
        (tokenizer, "in_channels: 3", "in_channels: 4", "in_channels` is 4: only 3"),
        (tokenizer, "scheduler_type: \"None\"", "scheduler_type: linear-warmup", "only None"),
        (tokenizer, "scheduler_type: \"None\"", "monitor: x", "scheduler_type` is not given"),
        (tokenizer, "gen_loss_weight: 0.2", "disc_factor: 1.0", "gen_loss_weight` is not given"),
        (tokenizer, "losses.vqperceptual", "losses.video_vqperceptual", "lossconfig.target"),
        (tokenizer, "batch_maximization_weight: 1.0", "batch_maximization_weight: 1.5", "only 1 can"),
        (tokenizer, "sample_minimization_weight: 1.0", "sample_minimization_weight: 0.5", "only 1 can"),
        (ar, "modules.transformer.gpt.GPT", "modules.transformer.llama.GPT", "transformer_config.target"),
        (ar, "twde: 0", "twde: 0.5", "twde` is 0.5: only 0"),
    ] {
        let file = changed(folder.path(), name, &[(old, new)]);
        let error = match name == ar {
            true => resolved::<ArConfig>(&file).map(|_| ()).unwrap_err(),
            false => resolved::<TokenizerConfig>(&file).map(|_| ()).unwrap_err(),
        };
        assert!(error.contains(part), "{new:?}: {error}");
    }
}

#[test]
fn steps_count_batches_in_both_programs() {
    let folder = tempfile::tempdir().unwrap();
    let train = |max_epochs: &str| {
        let file = changed(folder.path(), "reference_tokenizer.yaml", &[("max_epochs: 9", max_epochs)]);
        let Resolved { config, not_honoured, .. } = resolved::<TokenizerConfig>(&file).unwrap();
        (config.train.max_steps, config.train.epochs, not_honoured.join("\n"))
    };
    let (steps, _, listed) = train("max_steps: 1234");
    assert_eq!(steps, Some(1234));
    assert!(!listed.contains("max_steps"), "{listed}");
    let (steps, _, listed) = train("max_epochs: 9\n  max_steps: 1234");
    assert_eq!(steps, Some(1234));
    assert!(listed.contains("trainer.max_epochs = 9: the run ends at `trainer.max_steps`, 1234"), "{listed}");
    let (steps, epochs, _) = train("max_epochs: 9\n  max_steps: -1");
    assert_eq!((steps, epochs), (None, 9.0));
    let (steps, epochs, _) = train("max_steps: -1");
    assert_eq!((steps, epochs), (None, 1000.0));
}

#[test]
fn missing_keys_have_the_references_default() {
    let folder = tempfile::tempdir().unwrap();
    let changes =
        [("codebook_weight: 0.3", "novelty: 1"), ("lr_drop_epoch: [5, 7]", ""), ("codebook_enlarge_ratio: 1\n", "\n")];
    let file = changed(folder.path(), "reference_tokenizer.yaml", &changes);
    let TokenizerConfig { loss, train, .. } = resolved(&file).unwrap().config;
    assert_eq!((loss.codebook_weight, loss.codebook_enlarge_ratio), (1.0, 3.0));
    assert!(train.lr_drop_epochs.is_empty());
    let changes = [("wp: 3", ""), ("gradient_clip_val: 0.5", "")];
    let ArConfig { train, .. } = resolved(&changed(folder.path(), "reference_ar.yaml", &changes)).unwrap().config;
    assert_eq!((train.warmup_epochs, train.grad_clip), (0.0, f64::INFINITY));
}
