//! The autoregressive model against numbers of the reference itself.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::formula_params;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Weights;
use tokengrid_model::ar::{ArModel, ArWeights, Known, ModelConfig};
use tokengrid_test_support::{golden, golden_json, shapes};
use tokengrid_train::optim::{AdamW, AdamWConfig};
use tokengrid_train::schedule::WarmupLinear;

fn config(json: &serde_json::Value) -> ModelConfig {
    let int = |key: &str| json[key].as_i64().unwrap();
    ModelConfig {
        dim: int("dim"),
        n_head: int("n_head"),
        spatial_n_layer: int("spatial_n_layer"),
        factorized_n_layer: int("factorized_n_layer"),
        block_size: int("block_size"),
        class_num: int("class_num"),
        ..ModelConfig::default()
    }
}

fn data(name: &str) -> Weights {
    Weights::open(&golden(&format!("{name}.safetensors"))).unwrap()
}

fn ints(data: &Weights, name: &str) -> Tensor {
    data.tensor(name).unwrap().to_kind(Kind::Int64)
}

#[track_caller]
fn assert_near(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.size(), b.size(), "{what}");
    let difference = (a - b).abs().max().double_value(&[]);
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, allowed {tolerance:e}");
}

#[track_caller]
fn assert_relative(what: &str, value: f64, want: f64, tolerance: f64) {
    assert!((value - want).abs() <= tolerance * want.abs(), "{what}: {value}, not {want}");
}

#[test]
fn teacher_forced_logits_and_losses() {
    let _no_grad = tch::no_grad_guard();
    // Neither heads nor grid are in the tensors: heads are given, the grid is that of the fixture.
    let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
    weights.config.block_size = 64;
    let json = golden_json("ar.json");
    assert_eq!(weights.config, config(&json["config"]));
    assert_eq!(weights.config.num_params(), json["params"].as_i64().unwrap());
    let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
    let data = data("ar");
    let (pre, post, class) = (ints(&data, "pre"), ints(&data, "post"), ints(&data, "cls").view([-1]));
    let [logits_pre, logits_post] = model.forward(&pre, &post, &class, false);
    // The golden has every third position of the one, and every fifth logit of the first four positions of the other.
    assert_near("logits_pre", &logits_pre.slice(1, None, None, 3), &data.tensor("logits_pre").unwrap(), 2e-4);
    let logits_post = logits_post.narrow(1, 0, 4).slice(2, None, None, 5);
    assert_near("logits_post", &logits_post, &data.tensor("logits_post_first4").unwrap(), 2e-4);
    let losses = model.losses(&pre, &post, &class, false);
    let want = |name: &str| data.tensor(name).unwrap().double_value(&[]);
    assert_relative("loss_pre", losses.pre.double_value(&[]), want("loss_pre"), 1e-4);
    assert_relative("loss_post", losses.post.double_value(&[]), want("loss_post"), 1e-4);
}

#[test]
fn parameter_counts_and_tensor_names_of_the_published_models() {
    let json = golden_json("ar_full.json");
    for (preset, model) in json["models"].as_object().unwrap() {
        let config = config(&model["config"]);
        assert_eq!(config.num_params(), model["params"].as_i64().unwrap(), "{preset}");
        if let Some(tensors) = model.get("tensors") {
            let mut names: Vec<_> = config.tensors();
            let mut want = shapes(tensors);
            names.sort();
            want.sort();
            assert_eq!(names, want, "{preset}");
        }
    }
}

#[test]
fn presets_are_the_published_models() {
    use tokengrid_train::ar::ArConfig;
    use tokengrid_train::config::{Typed, resolve};
    let json = golden_json("ar_full.json");
    for (preset, model) in json["models"].as_object().unwrap() {
        let set = [format!("model.preset={preset}")];
        let resolved: ArConfig = resolve(&Typed { set: &set, ..Default::default() }).unwrap();
        assert_eq!(resolved.model.num_params(), model["params"].as_i64().unwrap());
    }
}

#[test]
fn full_size_b_forward() {
    let _no_grad = tch::no_grad_guard();
    let json = golden_json("ar_full.json");
    let config = config(&json["models"]["B"]["config"]);
    let model =
        ArModel::new(&config, &formula_params(&config, json["salt"].as_str().unwrap()), Device::Cpu, Kind::Float);
    let data = data("ar_full_B");
    let class = Tensor::from_slice(&[json["cls"].as_i64().unwrap()]);
    let [pre, post] = model.forward(&ints(&data, "pre"), &ints(&data, "post"), &class, false);
    let pre = pre.slice(1, None, None, 5); // the golden has every fifth position
    assert_near("logits_pre", &pre, &data.tensor("logits_pre").unwrap(), 2e-3);
    assert_near("logits_post", &post.select(1, -1), &data.tensor("logits_post_last").unwrap(), 2e-3);
}

#[test]
fn twelve_optimizer_steps() {
    let json = golden_json("ar_train.json");
    let config = config(&json["config"]);
    let number = |key: &str| json[key].as_f64().unwrap();
    let adamw = AdamWConfig {
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: number("weight_decay"),
        weight_decay_on_norms: true,
    };
    let params = formula_params(&config, json["salt"].as_str().unwrap());
    let (mut optimizer, leaves) = AdamW::new(&params, adamw, Device::Cpu);
    let model = ArModel::new(&config, &leaves, Device::Cpu, Kind::Float);
    let per_epoch = json["iters_per_epoch"].as_u64().unwrap();
    let schedule = WarmupLinear {
        peak_lr: number("peak_lr"),
        warmup: json["warmup_epochs"].as_u64().unwrap() * per_epoch,
        total: json["epochs"].as_u64().unwrap() * per_epoch,
        wp0: number("wp0"),
        wpe: number("wpe"),
    };
    let data = data("ar_train");
    for step in json["steps"].as_array().unwrap() {
        let it = step["it"].as_u64().unwrap();
        let (pre, post) = (ints(&data, &format!("batch{}.pre", it % 3)), ints(&data, &format!("batch{}.post", it % 3)));
        let class = Tensor::arange(pre.size()[0], (Kind::Int64, Device::Cpu)).remainder(config.class_num);
        // The golden run has no dropout: evaluation mode is its training mode.
        let losses = model.losses(&pre, &post, &class, false);
        let mut grads = optimizer.backward(&losses.total()).unwrap();
        let norm = grads.clip(1.0);
        optimizer.step(&grads, schedule.lr(it));
        let want = |key: &str| step[key].as_f64().unwrap();
        assert_relative(&format!("loss of step {it}"), losses.total().double_value(&[]), want("loss"), 2e-6);
        assert_relative(&format!("loss_pre of step {it}"), losses.pre.double_value(&[]), want("loss_pre"), 2e-6);
        assert_relative(&format!("loss_post of step {it}"), losses.post.double_value(&[]), want("loss_post"), 2e-6);
        assert_relative(&format!("gradient norm of step {it}"), norm, want("grad_norm"), 2e-6);
    }
    for name in data.names().filter_map(|name| name.strip_prefix("final.")) {
        assert_near(name, leaves.get(name), &data.tensor(&format!("final.{name}")).unwrap(), 5e-6);
    }
}
