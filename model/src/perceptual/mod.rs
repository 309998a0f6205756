//! LPIPS: how different two images look, by the features of a convolutional net.
//!
//! Each image is normalised and run through the net; at five taps the features are scaled to unit length over the
//! channels, subtracted, squared, weighted by channel, and averaged over positions. The sum of the five is the distance.
//! Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", version 0.1 weights.
//! Shape suffixes: `b` batch, `c` channels, `h w` positions.

mod backbone;
mod files;

use crate::ModelError;
use crate::Params;
pub use backbone::Backbone;
use backbone::{ConvSpec, conv_name, tap_name};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Mean of the net's input, on a scale of [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
/// Standard deviation of the net's input.
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Added to the length of a feature vector, which may be 0.
const NORM_EPS: f64 = 1e-10;

/// The distance, with its weights on a device. The weights are constants: gradients flow to the images only.
#[derive(Debug)]
pub struct Lpips {
    shift: Tensor,
    scale: Tensor,
    taps: Vec<Tap>,
    kind: Kind,
}

#[derive(Debug)]
struct Tap {
    pool: Option<(i64, i64)>,
    convs: Vec<Conv>,
    weight_1c11: Tensor,
}

#[derive(Debug)]
struct Conv {
    spec: ConvSpec,
    weight: Tensor,
    bias: Tensor,
}

impl Lpips {
    /// Reads the weights. `path` is one file in the naming of the reference's checkpoints (`net.slice1.0.weight`,
    /// `lin0.model.1.weight`, under any prefix: a tokenizer's `.ckpt` will do); or torchvision's file of the backbone and
    /// LPIPS's own, as `A,B`; or one of these two, when the other lies beside it under its published name.
    ///
    /// # Errors
    /// A missing file or part, with the published names; tensors of another backbone.
    pub fn open(backbone: Backbone, path: &Path, device: Device) -> Result<Lpips, ModelError> {
        Ok(Lpips::from_params(backbone, &files::load(backbone, path)?, device))
    }

    /// Builds the net over `params`, which hold [`Backbone::tensors`] and perhaps `scaling_layer.shift` and `.scale`.
    ///
    /// # Panics
    /// When one of them is missing.
    pub fn from_params(backbone: Backbone, params: &Params, device: Device) -> Lpips {
        let tensor = |name: &str| params.get(name).detach().to_device(device).to_kind(Kind::Float);
        let buffer = |name: &str, default: &[f32; 3]| match params.shape(name) {
            Some(_) => tensor(name).view([1, 3, 1, 1]),
            None => Tensor::from_slice(default).to_device(device).view([1, 3, 1, 1]),
        };
        let tap = |(k, slice): (usize, &backbone::Slice)| {
            let conv = |&spec: &ConvSpec| {
                let name = conv_name(k, spec.index);
                Conv { spec, weight: tensor(&format!("{name}.weight")), bias: tensor(&format!("{name}.bias")) }
            };
            Tap { pool: slice.pool, convs: slice.convs.iter().map(conv).collect(), weight_1c11: tensor(&tap_name(k)) }
        };
        let taps = backbone.slices().iter().enumerate().map(tap).collect();
        let [shift, scale] = files::BUFFERS;
        Lpips { shift: buffer(shift, &SHIFT), scale: buffer(scale, &SCALE), taps, kind: Kind::Float }
    }

    /// The same net with its convolutions in `kind`; the distances themselves stay in f32.
    pub fn with_kind(mut self, kind: Kind) -> Lpips {
        for conv in self.taps.iter_mut().flat_map(|tap| &mut tap.convs) {
            conv.weight = conv.weight.to_kind(kind);
            conv.bias = conv.bias.to_kind(kind);
        }
        self.kind = kind;
        self
    }

    /// Distances `[B]` of two batches of images `[B, 3, H, W]` in [-1, 1], f32. Both sides must be at least
    /// [`Backbone::min_side`] pixels long.
    pub fn forward(&self, a_bchw: &Tensor, b_bchw: &Tensor) -> Tensor {
        let pairs = self.features(a_bchw).into_iter().zip(self.features(b_bchw));
        let distances_b = pairs.zip(&self.taps).map(|((a_bchw, b_bchw), tap)| {
            let squared_bchw = (unit_length(&a_bchw) - unit_length(&b_bchw)).square();
            let weighted_b1hw = squared_bchw.conv2d::<Tensor>(&tap.weight_1c11, None, [1, 1], [0, 0], [1, 1], 1);
            weighted_b1hw.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
        });
        distances_b.sum()
    }

    /// Features at every tap, f32.
    fn features(&self, images_bchw: &Tensor) -> Vec<Tensor> {
        let mut x = ((images_bchw.to_kind(Kind::Float) - &self.shift) / &self.scale).to_kind(self.kind);
        let mut features = vec![];
        for tap in &self.taps {
            if let Some((side, stride)) = tap.pool {
                x = x.max_pool2d([side; 2], [stride; 2], [0, 0], [1, 1], false);
            }
            x = tap.convs.iter().fold(x, |x, conv| conv.forward(&x).relu());
            features.push(x.to_kind(Kind::Float));
        }
        features
    }
}

impl Conv {
    fn forward(&self, x_bchw: &Tensor) -> Tensor {
        let ConvSpec { stride, padding, .. } = self.spec;
        x_bchw.conv2d(&self.weight, Some(&self.bias), [stride; 2], [padding; 2], [1, 1], 1)
    }
}

/// Scales the vector at every position to length 1. The library's norm has gradient 0 where all features are 0; the root
/// of a sum of squares would have NaN.
fn unit_length(features_bchw: &Tensor) -> Tensor {
    let length_b1hw = features_bchw.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    features_bchw / (length_b1hw + NORM_EPS)
}
