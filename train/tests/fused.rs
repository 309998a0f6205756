//! The fused training step against autograd over the same model, against finite differences, and against numbers
//! of the reference.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::formula_params;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Weights;
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_test_support::{golden, golden_json};
use tokengrid_train::ar::{FusedStep, HostBatch};
use tokengrid_train::optim::{AdamW, AdamWConfig};
use tokengrid_train::schedule::WarmupLinear;

const ADAMW: AdamWConfig =
    AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, weight_decay_on_norms: true };

/// Sizes that divide no vector length evenly, and more than one task's rows.
fn small() -> ModelConfig {
    ModelConfig {
        dim: 60,
        n_head: 5,
        spatial_n_layer: 2,
        factorized_n_layer: 2,
        factorized_bits: [3, 5],
        block_size: 25,
        class_num: 7,
        ..ModelConfig::default()
    }
}

fn batch(config: &ModelConfig, size: usize) -> HostBatch {
    let n = size * config.block_size as usize;
    let mut state = 1u64;
    let mut below = |limit: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64) % limit
    };
    let [low, high] = config.vocab();
    let pre = (0..n).map(|_| below(low)).collect();
    let post = (0..n).map(|_| below(high)).collect();
    // The last class is "none".
    let class = (0..size).map(|i| if i == 0 { config.class_num } else { below(config.class_num) }).collect();
    HostBatch { pre, post, class }
}

#[test]
fn losses_and_every_gradient_equal_autograd() {
    let config = small();
    let (optimizer, leaves) = AdamW::new(&formula_params(&config, "fused"), ADAMW, Device::Cpu);
    let batch = batch(&config, 3);
    let model = ArModel::new(&config, &leaves, Device::Cpu, Kind::Float);
    let [pre, post, class] = batch.to_device(Device::Cpu);
    let losses = model.losses(&pre, &post, &class, false);
    let leaf_list: Vec<(&str, &Tensor)> = optimizer.leaves().collect();
    let tensors: Vec<&Tensor> = leaf_list.iter().map(|(_, tensor)| *tensor).collect();
    let wanted = Tensor::run_backward(&[losses.total()], &tensors, false, false);
    let (_, grads) = optimizer.zero_gradients();
    // SAFETY: this thread alone has the tensors.
    let mut step = unsafe { FusedStep::new(&config, &leaves, &grads, 3) };
    // Twice, with half the weight each: gradients add up, and nothing of the first pass is left in the second.
    for _ in 0..2 {
        let [ours_pre, ours_post] = step.run(&batch, 0.5, None);
        assert!((ours_pre - losses.pre.double_value(&[])).abs() < 1e-6);
        assert!((ours_post - losses.post.double_value(&[])).abs() < 1e-6);
    }
    for ((name, _), wanted) in leaf_list.iter().zip(&wanted) {
        let difference = (grads.get(name) - wanted).abs().max().double_value(&[]);
        let scale = wanted.abs().max().double_value(&[]);
        assert!(scale > 0.0 && difference <= 1e-5 * scale, "{name}: off by {difference:e} of {scale:e}");
    }
}

#[test]
fn with_dropout_the_gradient_is_that_of_the_same_draw() {
    let config = ModelConfig { token_drop: 0.2, resid_dropout: 0.3, ffn_dropout: 0.1, ..small() };
    let (optimizer, leaves) = AdamW::new(&formula_params(&config, "drop"), ADAMW, Device::Cpu);
    let batch = batch(&config, 2);
    let (_, grads) = optimizer.zero_gradients();
    // SAFETY: this thread alone has the tensors.
    let mut step = unsafe { FusedStep::new(&config, &leaves, &grads, 2) };
    let draw: &[u64] = &[42, 7];
    let loss = |step: &mut FusedStep, name| step.run(&batch, 1.0, name).iter().sum::<f64>();
    let first = loss(&mut step, Some(draw));
    assert_ne!(first, loss(&mut step, None));
    assert_ne!(first, loss(&mut step, Some(&[42, 8])));
    for name in
        ["spatial_blocks.0.attention.wqkv.weight", "factorized_blocks.1.feed_forward.w2.weight", "pre_emb.weight"]
    {
        let _no_grad = tch::no_grad_guard();
        grads.iter().for_each(|(_, grad)| drop(grad.shallow_clone().zero_()));
        assert_eq!(loss(&mut step, Some(draw)), first);
        let along = grads.get(name).copy();
        let slope = along.square().sum(Kind::Double).double_value(&[]);
        let width = 1e-2 / slope.sqrt();
        let mut leaf = leaves.get(name).detach();
        let start = leaf.copy();
        let mut at = |distance: f64| {
            leaf.copy_(&(&start + &along * distance));
            loss(&mut step, Some(draw))
        };
        let (above, below) = (at(width), at(-width));
        at(0.0);
        let measured = (above - below) / (2.0 * width);
        assert!((measured - slope).abs() < 0.02 * slope, "{name}: {measured} by differences, {slope}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    tokengrid_test_support::alone!();
    let config = small();
    let (optimizer, leaves) = AdamW::new(&formula_params(&config, "threads"), ADAMW, Device::Cpu);
    let batch = batch(&config, 3);
    let threads = tch::get_num_threads();
    let results = [1, 2].map(|count| {
        tch::set_num_threads(count);
        let (_, grads) = optimizer.zero_gradients();
        // SAFETY: this thread alone has the tensors.
        let mut step = unsafe { FusedStep::new(&config, &leaves, &grads, 3) };
        let losses = step.run(&batch, 1.0, Some(&[1]));
        (losses, grads)
    });
    tch::set_num_threads(threads);
    assert_eq!(results[0].0, results[1].0);
    // Of the kernels, to the bit; libtorch's matrix products may split their sums by threads.
    for (name, grad) in results[0].1.iter().filter(|(name, _)| name.ends_with("norm.weight")) {
        let other = results[1].1.get(name);
        let difference = (grad - other).abs().max().double_value(&[]);
        assert!(difference <= 1e-6 * grad.abs().max().double_value(&[]), "{name}");
    }
}

#[test]
fn twelve_steps_of_the_reference() {
    let json = golden_json("ar_train.json");
    let int = |key: &str| json["config"][key].as_i64().unwrap();
    let config = ModelConfig {
        dim: int("dim"),
        n_head: int("n_head"),
        spatial_n_layer: int("spatial_n_layer"),
        factorized_n_layer: int("factorized_n_layer"),
        block_size: int("block_size"),
        class_num: int("class_num"),
        ..ModelConfig::default()
    };
    let (mut optimizer, leaves) =
        AdamW::new(&formula_params(&config, json["salt"].as_str().unwrap()), ADAMW, Device::Cpu);
    let (mut gradients, grads) = optimizer.zero_gradients();
    let per_epoch = json["iters_per_epoch"].as_u64().unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    let schedule = WarmupLinear {
        peak_lr: number("peak_lr"),
        warmup: json["warmup_epochs"].as_u64().unwrap() * per_epoch,
        total: json["epochs"].as_u64().unwrap() * per_epoch,
        wp0: number("wp0"),
        wpe: number("wpe"),
    };
    let data = Weights::open(&golden("ar_train.safetensors")).unwrap();
    let ints =
        |name: String| Vec::<i64>::try_from(&data.tensor(&name).unwrap().to_kind(Kind::Int64).view([-1])).unwrap();
    let mut fused: Option<FusedStep> = None;
    for step in json["steps"].as_array().unwrap() {
        let it = step["it"].as_u64().unwrap();
        let (pre, post) = (ints(format!("batch{}.pre", it % 3)), ints(format!("batch{}.post", it % 3)));
        let size = pre.len() / config.block_size as usize;
        let batch = HostBatch { pre, post, class: (0..size as i64).map(|i| i % config.class_num).collect() };
        // SAFETY: this thread alone has the tensors.
        let fused = fused.get_or_insert_with(|| unsafe { FusedStep::new(&config, &leaves, &grads, size) });
        gradients.zero();
        let losses = fused.run(&batch, 1.0, None);
        let norm = gradients.clip(1.0);
        optimizer.step(&gradients, schedule.lr(it));
        for (what, value) in [("loss_pre", losses[0]), ("loss_post", losses[1]), ("grad_norm", norm)] {
            let want = step[what].as_f64().unwrap();
            assert!((value - want).abs() <= 2e-6 * want, "{what} of step {it}: {value}, not {want}");
        }
    }
    for name in data.names().filter_map(|name| name.strip_prefix("final.")) {
        let difference = (leaves.get(name) - data.tensor(&format!("final.{name}")).unwrap()).abs().max();
        assert!(difference.double_value(&[]) <= 5e-6, "{name}: {difference:?}");
    }
}
