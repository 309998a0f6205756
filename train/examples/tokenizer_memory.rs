//! Peak memory of one training step of the full-size tokenizer, on the CPU: every part of the recipe, one batch.
//!
//! ```sh
//! cargo run --release -p tokengrid-train --example tokenizer_memory -- 128 1 fp32   # side, batch, precision
//! ```
//!
//! The weights are random and so are the images; neither changes what is kept in memory.

use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{Params, Precision};
use tokengrid_train::config::{Typed, resolve};
use tokengrid_train::loss_scale::LossScale;
use tokengrid_train::tokenizer::{InitialWeights, Learner, TokenizerConfig};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [side, batch, precision] = &args[..] else { panic!("expected side, batch and precision") };
    let (side, batch): (i64, i64) = (side.parse().expect("a side"), batch.parse().expect("a batch size"));
    let kind = precision.parse::<Precision>().expect("a precision").kind();
    let set = ["model.preset=imagenet_256_L".to_string(), format!("train.image_size={side}")];
    let config: TokenizerConfig = resolve(&Typed { set: &set, ..Default::default() }).expect("a configuration");

    let net = Backbone::Vgg16.tensors().into_iter();
    let net: Params =
        net.map(|(name, shape)| (name, Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.02)).collect();
    let lpips = Lpips::from_params(Backbone::Vgg16, &net, Device::Cpu).with_kind(kind);
    let weights = InitialWeights::fresh(&config);
    let learner = Learner::new(&config, weights, Some(lpips), Runtime::EXACT, kind, LossScale::OFF);
    let mut learner = learner.expect("a learner");
    let before = mebibytes("VmRSS:");
    let images = Tensor::rand([batch, 3, side, side], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    learner.batch(&images, 1e-4).expect("a step");
    let peak = mebibytes("VmHWM:");
    println!("{side} pixels, batch {batch}, {precision}: {before:.0} MiB before the step, {peak:.0} MiB at its peak");
}

/// A size of this process in MiB; 0 where the system does not report it.
fn mebibytes(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.unwrap_or_default() / 1024.0
}
