//! The averaged weights of an autoregressive run.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

#[path = "common/small_run.rs"]
mod small_run;

use small_run::{cache, config, file, model, same_tensors, train, train_among, values};
use std::path::Path;
use tch::{Device, Kind};
use tokengrid_cache::Access;
use tokengrid_model::Weights;
use tokengrid_model::ar::{ArModel, ArWeights};
use tokengrid_model::checkpoints::{EMA, MODEL};
use tokengrid_train::ar::{ArConfig, Unpacker, evaluate};

/// Averages that move visibly within a few steps.
const DECAY: f64 = 0.9;

fn averaging(dir: &Path, steps: u64) -> ArConfig {
    let mut config = config(dir, steps);
    config.train.ema_decay = DECAY;
    config
}

#[test]
fn averages_follow_the_weights_and_do_not_change_them() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let (run, plain) = (dir.join("run"), dir.join("plain"));
    let mut config = averaging(dir, 6);
    (config.train.checkpoint_every, config.train.keep_last) = (1, 0);
    train(&config, &run).unwrap();
    config.train.ema_decay = 0.0;
    train(&config, &plain).unwrap();
    assert!(same_tensors(&file(&run, 6, MODEL), &file(&plain, 6, MODEL)));
    assert!(!file(&plain, 6, EMA).exists());
    let averages = |step: u64| Weights::open(&file(&run, step, EMA)).unwrap();
    let start = Weights::open(&dir.join("start.safetensors")).unwrap();
    for step in 1..=6 {
        let (before, after, weights) = (averages(step.max(2) - 1), averages(step), model(&run, step));
        for name in weights.names() {
            let before = if step == 1 { &start } else { &before }.tensor(name).unwrap();
            let moved = (weights.tensor(name).unwrap() - &before) * (1.0 - DECAY) + before;
            assert!(after.tensor(name).unwrap().allclose(&moved, 1e-6, 1e-8, false), "{name} at step {step}");
        }
    }
    let far = averages(6).tensor("norm.weight").unwrap() - model(&run, 6).tensor("norm.weight").unwrap();
    assert!(far.abs().max().double_value(&[]) > 1e-5, "they lag behind");
}

#[test]
fn averages_are_the_same_to_the_bit_in_parts_and_in_any_number_of_processes() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let mut config = averaging(dir, 8);
    (config.train.deterministic_reduce, config.train.global_batch) = (true, Some(16));
    // The learning rate does not depend on the length, so that a part is the beginning of the whole.
    (config.train.wpe, config.train.warmup_steps) = (1.0, Some(0));
    let whole = dir.join("whole");
    train(&config, &whole).unwrap();
    for (name, shard_optimizer, first, second) in
        [("parts", false, 1, 1), ("two", false, 2, 2), ("shared", true, 3, 2), ("alone-last", true, 2, 1)]
    {
        let run = dir.join(name);
        config.train.shard_optimizer = shard_optimizer;
        for (steps, processes) in [(4, first), (8, second)] {
            config.train.max_steps = Some(steps);
            train_among(&vec![config.clone(); processes], &run).into_iter().for_each(|end| drop(end.unwrap()));
        }
        for tensors in [MODEL, EMA] {
            assert!(same_tensors(&file(&run, 8, tensors), &file(&whole, 8, tensors)), "{name}: {tensors}");
        }
    }
}

#[test]
fn averages_are_validated_and_are_what_a_runs_folder_stands_for() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let cache = cache(dir);
    let run = dir.join("run");
    let mut config = averaging(dir, 6);
    config.data.val_cache = Some(cache.display().to_string());
    // Another number of processes: averages are gathered to be validated.
    config.train.shard_optimizer = true;
    train_among(&vec![config.clone(); 2], &run).into_iter().for_each(|end| drop(end.unwrap()));
    let loss = |variant: Option<&str>| {
        let file = ArWeights::file_of(&run, variant.map(|variant| variant.parse().unwrap())).unwrap();
        let weights = ArWeights::open(file.path(), None).unwrap();
        let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
        let cache = Unpacker::open(&cache, &weights.config, Access::Map).unwrap();
        evaluate(&model, &cache, Device::Cpu, None, None).unwrap().loss
    };
    let logged = |key: &str| values(&run, key)[5].unwrap();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
    assert!(near(loss(Some("raw")), logged("val/loss")) && near(loss(Some("ema")), logged("val/loss_ema")));
    assert!(near(loss(None), loss(Some("ema"))) && !near(loss(None), loss(Some("raw"))));
    // Their file is needed to go on.
    config.train.max_steps = Some(8);
    std::fs::remove_file(file(&run, 6, EMA)).unwrap();
    train_among(&vec![config.clone(); 2], &run).into_iter().for_each(|end| drop(end.unwrap()));
    assert_eq!(values(&run, "step").len(), 8, "it went on from step 4");
}
