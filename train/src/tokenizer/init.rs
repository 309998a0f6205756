//! Initial weights of a tokenizer.

use tch::{Device, Kind, Tensor};
use tokengrid_model::{Architecture, Params};

/// PyTorch's default for convolutions and linear layers (uniform within 1 / sqrt(fan-in)), norms at one and zero. The
/// values depend on the seed alone.
pub(super) fn initial_params(architecture: &Architecture, seed: i64) -> Params {
    tch::manual_seed(seed);
    let mut fan_in = 1;
    let init = |(name, shape): (String, Vec<i64>)| {
        let options = (Kind::Float, Device::Cpu);
        let is_norm = name.contains("norm");
        if shape.len() >= 2 {
            fan_in = shape[1..].iter().product::<i64>();
        }
        let tensor = match (is_norm, name.ends_with("weight")) {
            (true, true) => Tensor::ones(shape.as_slice(), options),
            (true, false) => Tensor::zeros(shape.as_slice(), options),
            // A bias follows its weight in the list, and shares its bound.
            _ => (Tensor::rand(shape.as_slice(), options) * 2.0 - 1.0) * (fan_in as f64).sqrt().recip(),
        };
        (name, tensor)
    };
    architecture.tensors().into_iter().map(init).collect()
}
