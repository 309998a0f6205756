//! Files under the reference's key names, and what becomes of them.

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
    let Resolved { config, not_honoured } = resolved::<ArConfig>(&fixture("reference_ar.yaml")).unwrap();
    let ArConfig { model, train, .. } = &config;
    assert_eq!((model.dim, model.n_head, model.block_size, model.class_num), (128, 4, 64, 10));
    assert_eq!((model.spatial_n_layer, model.factorized_n_layer, model.factorized_bits), (6, 2, [6, 12]));
    assert_eq!((model.token_drop, model.resid_dropout, model.ffn_dropout), (0.05, 0.15, 0.1));
    assert_eq!((train.peak_lr, train.weight_decay, train.grad_clip), (2e-4, 4e-2, 0.5));
    assert_eq!((train.epochs, train.warmup_epochs, train.wp0, train.wpe), (12.0, 3.0, 0.01, 0.2));
    assert_eq!((train.batch_size, train.precision.as_str(), train.seed), (5, "bf16", 42));
    let listed = |start: &str| not_honoured.iter().any(|line| line.starts_with(start));
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
    let Resolved { config, not_honoured } = resolved::<TokenizerConfig>(&fixture("reference_tokenizer.yaml")).unwrap();
    let TokenizerConfig { model, loss, train, .. } = &config;
    assert_eq!((model.ch, &model.ch_mult, model.num_res_blocks, model.z_channels), (64, &vec![1, 2, 4], 2, 14));
    assert_eq!((loss.codebook_weight, loss.commit_weight), (0.3, 0.15));
    assert_eq!((loss.codebook_enlarge_ratio, loss.codebook_enlarge_steps), (1.0, 500));
    assert_eq!((train.batch_size, train.lr, train.image_size), (6, 2e-4, 96));
    assert_eq!((train.seed, train.log_every), (7, 50));
    let listed = |start: &str| not_honoured.iter().any(|line| line.starts_with(start));
    assert!(listed("model.init_args.batch_maximization_weight = 1.5: it is always 1"), "{not_honoured:#?}");
    assert!(listed("trainer.check_val_every_n_epoch = 2: "), "{not_honoured:#?}");
    // Whatever a key stands for, it is either honoured or listed.
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
        ("1: 2", "no text"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text:?}: {error}");
    }
    let class = "model:\n  class_path: src.Open_MAGVIT2.models.cond_transformer_gpt.Net2NetTransformer\n  init_args:\n";
    let error = refused(&format!("{class}    learning_rate: fast\n"));
    assert!(error.contains("x.yml") && error.contains("invalid type"), "{error}");
    let error = refused(&format!("{class}    transformer_config:\n      params:\n        n_head: 7\n"));
    assert!(error.contains("model.n_head"), "{error}");
}
