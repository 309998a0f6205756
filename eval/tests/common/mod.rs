//! Networks with golden weights, for several test files.
#![allow(clippy::unwrap_used, dead_code, missing_docs)] // in a test, a panic is the report

use tch::{Device, Tensor};
use tokengrid_eval::Inception;
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{Architecture, Params, Runtime, Tokenizer, Weights};
use tokengrid_test_support::{formula, golden, golden_json, shapes};

/// The golden Inception network: weights by the formula, means halved, variances positive.
pub(crate) fn inception_params(json: &serde_json::Value) -> Params {
    let (salt, gain) = (json["salt"].as_str().unwrap(), json["gain"].as_f64().unwrap());
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let values = Tensor::from_slice(&formula(salt, &name, &shape, gain)).view(shape.as_slice());
        let values = match name.rsplit('.').next() {
            Some("running_mean") => values * 0.5,
            Some("running_var") => values.abs(),
            _ => values,
        };
        (name, values)
    };
    shapes(&json["tensors"]).into_iter().map(tensor).collect()
}

pub(crate) fn inception(json: &serde_json::Value) -> Inception {
    // One thread: on a loaded machine, several would mostly wait for each other.
    tch::set_num_threads(1);
    Inception::from_params(&inception_params(json), "the golden network".as_ref(), Runtime::EXACT).unwrap()
}

/// LPIPS as the protocol's golden has it: published taps, and everything else, including the input's scaling, by the formula.
pub(crate) fn lpips(backbone: Backbone) -> Lpips {
    let name = backbone.name();
    let taps = Weights::open(&golden(&format!("lpips_{name}_lin.safetensors"))).unwrap();
    let scaling = ["shift", "scale"].map(|part| (format!("scaling_layer.{part}"), vec![1, 3, 1, 1]));
    let tensor = |(key, shape): (String, Vec<i64>)| {
        let by_formula = || formula(&format!("v1:lpips_{name}:"), &key, &shape, 6.0);
        let tensor = match key.starts_with("lin") {
            true => taps.tensor(&key).unwrap(),
            false => Tensor::from_slice(&by_formula()).view(shape.as_slice()),
        };
        (key, tensor)
    };
    let params: Params = backbone.tensors().into_iter().chain(scaling).map(tensor).collect();
    Lpips::from_params(backbone, &params, Device::Cpu)
}

/// A golden tokenizer with weights by the formula.
pub(crate) fn tokenizer(json_name: &str, salt: &str) -> Tokenizer {
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let tensor = Tensor::from_slice(&formula(salt, &name, &shape, 3.0)).view(shape.as_slice());
        (name, tensor)
    };
    let params: Params = shapes(&golden_json(json_name)["tensors"]).into_iter().map(tensor).collect();
    let architecture = Architecture::infer(&params, json_name.as_ref()).unwrap();
    Tokenizer::from_params(architecture, &params).for_inference()
}
