//! The Inception network that FID and the inception score are defined by.
//!
//! It is Google's network of December 2015, whose weights the pytorch-fid and torch-fidelity projects publish. From
//! torchvision's it differs in three places: average pools leave the padding out, the last block's pool takes the maximum,
//! and there are 1,008 classes. Always fp32. Shape suffixes: `b` batch, `c` channels, `h w` pixels.

mod input;
mod layers;
mod layout;

use crate::EvalError;
pub use input::Protocol;
use layers::Block;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::{ModelError, Params, Weights};

/// Length of a pool3 feature vector, which FID compares.
pub const POOL3: usize = 2048;
/// Number of classes of the logits.
pub(crate) const CLASSES: usize = 1008;
/// Length of a spatial feature vector, which sFID compares: 7 channels of a 17 x 17 map.
pub const SPATIAL: usize = 17 * 17 * SPATIAL_CHANNELS as usize;
const SPATIAL_CHANNELS: i64 = 7;

/// Published name of the file with the weights.
pub const FILE_NAME: &str = "pt_inception-2015-12-05-6726825d.pth";

/// The network with its weights, on a device.
pub struct Inception {
    blocks: Vec<Block>,
    /// `[1008, 2048]`.
    fc_weight: Tensor,
    fc_bias: Tensor,
    runtime: Runtime,
}

/// Features of some pictures, f32 on the CPU.
#[derive(Debug)]
pub struct Features {
    /// `[B, 2048]`.
    pub pool3: Tensor,
    /// `[B, 1008]`.
    pub logits: Tensor,
    /// `[B, 2023]`: the first 7 channels after the 1x1 convolution of Mixed_6d, by row, column, channel.
    pub spatial: Tensor,
}

impl Inception {
    /// Reads the published weights.
    ///
    /// # Errors
    /// The file does not exist (the message says where it is published), or is not the published one.
    pub fn open(path: &Path, runtime: Runtime) -> Result<Inception, EvalError> {
        if !path.exists() {
            return Err(EvalError::NoWeights {
                path: path.into(),
                what: "the Inception weights of FID",
                file: FILE_NAME,
                published: "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
                flag: "--inception",
            });
        }
        let weights = Weights::open(path)?;
        // Counters of training, and a classifier that evaluation does not use.
        let is_used = |name: &str| !name.ends_with(".num_batches_tracked") && !name.starts_with("AuxLogits.");
        let used = weights.names().filter(|name| is_used(name));
        let params: Params =
            used.map(|name| Ok((name.to_string(), weights.parameter(name)?))).collect::<Result<_, ModelError>>()?;
        Inception::from_params(&params, path, runtime)
    }

    /// Builds the network over tensors of the published names; `path` is only named in messages.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or does not belong to the network.
    pub fn from_params(params: &Params, path: &Path, runtime: Runtime) -> Result<Inception, EvalError> {
        let layout = layout::blocks();
        params.check(&layout::tensors(&layout), path, "the Inception weights of FID")?;
        let get = |name: &str| params.get(name).to_kind(Kind::Float).to_device(runtime.device);
        let blocks = layout.iter().map(|block| Block::new(block, params, runtime.device)).collect();
        Ok(Inception { blocks, fc_weight: get("fc.weight"), fc_bias: get("fc.bias"), runtime })
    }

    /// Features of RGB pictures of one size, bytes `[B, height, width, 3]`.
    ///
    /// On the CPU every picture is a separate call, so that its features depend on nothing else in the batch.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the device fails.
    ///
    /// # Panics
    /// When the bytes are not whole pictures.
    pub fn features(&self, rgb: &[u8], width: usize, height: usize, protocol: Protocol) -> Result<Features, EvalError> {
        let _no_grad = tch::no_grad_guard();
        let picture_bytes = width * height * 3;
        assert!(picture_bytes > 0 && rgb.len().is_multiple_of(picture_bytes), "whole pictures");
        let call_bytes = if self.runtime.route.whole_batches { rgb.len().max(picture_bytes) } else { picture_bytes };
        let calls = rgb.chunks(call_bytes).map(|bytes| {
            let input_bchw = input::to_input(bytes, width, height, protocol, self.runtime.device)?;
            self.forward(input_bchw, protocol)
        });
        joined(calls)
    }

    /// Features of images that are floats, f32 `[B, 3, H, W]` in [-1, 1] on the network's device, by the protocol of
    /// pytorch-fid. On the CPU every image is a separate call.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the device fails.
    pub fn features_of_input(&self, input_bchw: &Tensor) -> Result<Features, EvalError> {
        let _no_grad = tch::no_grad_guard();
        let images = input_bchw.size()[0];
        let call = if self.runtime.route.whole_batches { images.max(1) } else { 1 };
        joined(input_bchw.split(call, 0).iter().map(|input_bchw| {
            let unit_bchw = (input_bchw + 1.0) / 2.0;
            self.forward(input::of_unit(&unit_bchw)?, Protocol::PytorchFid)
        }))
    }

    /// `[B, 3, 299, 299]` in [-1, 1] to pool3, logits and spatial features.
    fn forward(&self, input_bchw: Tensor, protocol: Protocol) -> Result<[Tensor; 3], tch::TchError> {
        let mut x_bchw = input_bchw;
        let mut spatial = None;
        for block in &self.blocks {
            x_bchw = block.forward(&x_bchw)?;
            if block.name == layout::SPATIAL_BLOCK {
                // The 1x1 convolution is the first branch.
                let first_bchw = x_bchw.f_narrow(1, 0, SPATIAL_CHANNELS)?;
                spatial = Some(first_bchw.f_permute([0, 2, 3, 1])?.f_flatten(1, -1)?);
            }
        }
        let pool3 = x_bchw.f_mean_dim([2i64, 3].as_slice(), false, Kind::Float)?;
        let bias = protocol.has_bias().then_some(&self.fc_bias);
        let logits = pool3.f_linear(&self.fc_weight, bias)?;
        let spatial = spatial.expect("the layout has the block of spatial features");
        Ok([pool3.f_to_device(Device::Cpu)?, logits.f_to_device(Device::Cpu)?, spatial.f_to_device(Device::Cpu)?])
    }
}

fn joined(calls: impl Iterator<Item = Result<[Tensor; 3], tch::TchError>>) -> Result<Features, EvalError> {
    let calls: Vec<[Tensor; 3]> = calls.collect::<Result<_, tch::TchError>>().map_err(failed)?;
    let part = |k: usize| Tensor::cat(&calls.iter().map(|call| &call[k]).collect::<Vec<_>>(), 0);
    Ok(Features { pool3: part(0), logits: part(1), spatial: part(2) })
}

fn failed(source: tch::TchError) -> EvalError {
    ModelError::torch("computing Inception features")(source).into()
}
