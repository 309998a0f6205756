//! The PatchGAN discriminator (Isola et al., arXiv 1611.07004; the reference's `NLayerDiscriminator`): convolutions that give
//! one logit for every patch of an image.
//!
//! `main.0` is a 4x4 convolution that halves the size, with LeakyReLU; then `num_layers - 1` more with BatchNorm, each
//! halving; one that keeps the size; and one to a single channel. Every layer has padding 1, so the last two lose a pixel.

use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Params;

/// Prefix of its tensors in the reference's checkpoints.
pub(super) const PREFIX: &str = "loss.discriminator.main.";

const KERNEL: i64 = 4;
/// Slope of LeakyReLU below 0.
const SLOPE: f64 = 0.2;
/// PyTorch's defaults for BatchNorm.
const NORM_EPS: f64 = 1e-5;
const NORM_MOMENTUM: f64 = 0.1;

/// The size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGan {
    /// Channels of the first layer; later ones have up to 8 times as many.
    pub ndf: i64,
    /// Convolutions with stride 2.
    pub num_layers: i64,
}

/// One convolution and what follows it.
#[derive(Debug, Clone, Copy)]
struct Layer {
    /// Position in `main`; a norm has the next one.
    index: i64,
    channels: (i64, i64),
    stride: i64,
    /// The first and the last layer have a bias, the others a BatchNorm.
    has_norm: bool,
    is_last: bool,
}

impl PatchGan {
    fn layers(self) -> Vec<Layer> {
        let width = |n: i64| self.ndf * (1 << n.min(3));
        let mut layers = vec![Layer { index: 0, channels: (3, width(0)), stride: 2, has_norm: false, is_last: false }];
        for n in 1..=self.num_layers {
            let stride = if n < self.num_layers { 2 } else { 1 };
            let channels = (width(n - 1), width(n));
            layers.push(Layer { index: 3 * n - 1, channels, stride, has_norm: true, is_last: false });
        }
        let (index, channels) = (3 * self.num_layers + 2, (width(self.num_layers), 1));
        layers.push(Layer { index, channels, stride: 1, has_norm: false, is_last: true });
        layers
    }

    /// Side of the grid of logits for images of `side` pixels; 0 or less where they are too small.
    pub(crate) fn logits_side(self, side: i64) -> i64 {
        self.layers().iter().fold(side, |side, layer| (side + 2 - KERNEL).div_euclid(layer.stride) + 1)
    }

    /// Name and shape of every parameter.
    pub(crate) fn tensors(self) -> Vec<(String, Vec<i64>)> {
        let mut list = vec![];
        for layer in self.layers() {
            let (input, output) = layer.channels;
            list.push((format!("{PREFIX}{}.weight", layer.index), vec![output, input, KERNEL, KERNEL]));
            if layer.has_norm {
                list.push((format!("{PREFIX}{}.weight", layer.index + 1), vec![output]));
                list.push((format!("{PREFIX}{}.bias", layer.index + 1), vec![output]));
            } else {
                list.push((format!("{PREFIX}{}.bias", layer.index), vec![output]));
            }
        }
        list
    }

    /// Fresh parameters: convolutions N(0, 0.02) with PyTorch's default biases, norm weights N(1, 0.02), norm biases 0.
    pub(crate) fn initial_params(self, seed: i64) -> Params {
        tch::manual_seed(seed);
        let mut fan_in = 1;
        let init = |(name, shape): (String, Vec<i64>)| {
            let options = (Kind::Float, Device::Cpu);
            let is_norm = self.layers().iter().any(|l| l.has_norm && name == format!("{PREFIX}{}.bias", l.index + 1));
            let tensor = match (shape.len(), name.ends_with("weight")) {
                (1, true) => Tensor::randn(shape.as_slice(), options) * 0.02 + 1.0,
                (_, true) => {
                    fan_in = shape[1..].iter().product();
                    Tensor::randn(shape.as_slice(), options) * 0.02
                }
                _ if is_norm => Tensor::zeros(shape.as_slice(), options),
                _ => (Tensor::rand(shape.as_slice(), options) * 2.0 - 1.0) * (fan_in as f64).sqrt().recip(),
            };
            (name, tensor)
        };
        self.tensors().into_iter().map(init).collect()
    }

    /// Name and shape of every running statistic.
    pub(crate) fn running_tensors(self) -> Vec<(String, Vec<i64>)> {
        let norms = self.layers().into_iter().filter(|layer| layer.has_norm);
        let names = norms.flat_map(|layer| {
            let at = |what: &str| (format!("{PREFIX}{}.{what}", layer.index + 1), vec![layer.channels.1]);
            [at("running_mean"), at("running_var")]
        });
        names.collect()
    }

    /// Fresh running statistics on `device`: means 0, variances 1.
    pub(crate) fn initial_running(self, device: Device) -> Params {
        let fresh = |(name, shape): (String, Vec<i64>)| {
            let value = if name.ends_with("running_var") { 1.0 } else { 0.0 };
            (name, Tensor::full(shape.as_slice(), value, (Kind::Float, device)))
        };
        self.running_tensors().into_iter().map(fresh).collect()
    }

    /// Patch logits `[B, 1, h, w]` (f32) of images `[B, 3, H, W]`, always in training mode: every norm uses the batch's own
    /// statistics and moves the running ones in `running`, which only checkpoints are for. The convolutions compute in
    /// the kind of `params`.
    pub(crate) fn forward(self, images_bchw: &Tensor, params: &Params, running: &Params) -> Tensor {
        let start = images_bchw.to_kind(params.get(&format!("{PREFIX}0.weight")).kind());
        let logits = self.layers().into_iter().fold(start, |x, layer| layer.forward(&x, params, running));
        logits.to_kind(Kind::Float)
    }

    /// BatchNorm's batch counters under the names of the reference's checkpoints, all with the value `batches`.
    pub(crate) fn num_batches_tracked(self, batches: i64) -> BTreeMap<String, Tensor> {
        let norms = self.layers().into_iter().filter(|layer| layer.has_norm);
        norms.map(|layer| (format!("{PREFIX}{}.num_batches_tracked", layer.index + 1), Tensor::from(batches))).collect()
    }
}

impl Layer {
    fn forward(self, x_bchw: &Tensor, params: &Params, running: &Params) -> Tensor {
        let name = |index: i64, what: &str| format!("{PREFIX}{index}.{what}");
        let weight = params.get(&name(self.index, "weight"));
        let bias = (!self.has_norm).then(|| params.get(&name(self.index, "bias")));
        let mut y = x_bchw.conv2d(weight, bias, [self.stride; 2], [1, 1], [1, 1], 1);
        if self.has_norm {
            let norm = self.index + 1;
            let [mean, variance] = ["running_mean", "running_var"].map(|what| Some(running.get(&name(norm, what))));
            let [weight, bias] =
                ["weight", "bias"].map(|what| Some(params.get(&name(norm, what)).to_kind(Kind::Float)));
            y = y.batch_norm(weight.as_ref(), bias.as_ref(), mean, variance, true, NORM_MOMENTUM, NORM_EPS, true);
        }
        if self.is_last { y } else { leaky_relu(&y) }
    }
}

/// x where it is positive, else 0.2 x.
fn leaky_relu(x: &Tensor) -> Tensor {
    x.prelu(&Tensor::full([1], SLOPE, (x.kind(), x.device())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: PatchGan = PatchGan { ndf: 4, num_layers: 3 };

    #[test]
    fn names_are_those_of_the_reference() {
        let json = tokengrid_test_support::golden_json("tok_train.json");
        let mut want = tokengrid_test_support::shapes(&json["tensors"]);
        want.retain(|(name, _)| name.starts_with(PREFIX));
        want.sort();
        let net = PatchGan { ndf: json["disc_ndf"].as_i64().unwrap(), num_layers: 3 };
        let mut names = [net.tensors(), net.running_tensors()].concat();
        names.sort();
        assert_eq!(names, want);
    }

    #[test]
    fn the_side_of_the_logits_is_what_forward_gives() {
        let (params, running) = (SMALL.initial_params(1), SMALL.initial_running(Device::Cpu));
        for side in [24, 32, 64] {
            let logits =
                SMALL.forward(&Tensor::rand([2, 3, side, side], (Kind::Float, Device::Cpu)), &params, &running);
            let logits_side = SMALL.logits_side(side);
            assert_eq!(logits.size(), [2, 1, logits_side, logits_side]);
        }
        assert!(SMALL.logits_side(23) < 1);
    }

    #[test]
    fn running_statistics_move_a_tenth_of_the_way_at_every_forward() {
        let (params, running) = (SMALL.initial_params(1), SMALL.initial_running(Device::Cpu));
        let image = Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu));
        let mean = running.get("loss.discriminator.main.3.running_mean");
        let _ = SMALL.forward(&image, &params, &running);
        let once = mean.copy();
        let _ = SMALL.forward(&image, &params, &running);
        assert!(once.abs().max().double_value(&[]) > 0.0);
        assert!(mean.allclose(&(once * 1.9), 1e-5, 1e-7, false));
    }
}
