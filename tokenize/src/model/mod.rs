//! The tokenizer network: what its parameters are called, and how they are applied.

mod architecture;
mod blocks;
mod decoder;
mod encoder;

pub use architecture::Architecture;
pub use decoder::Decoder;
pub use encoder::Encoder;

use crate::weights::{Params, Variant, Weights};
use crate::{TokenizeError, lfq};
use tch::{Device, Kind, Tensor};

/// Encoder, decoder and the architecture that they share. Parameters are shared, not copied, by clones of the tensors.
pub struct Tokenizer {
    /// What the tensors' shapes say.
    pub architecture: Architecture,
    /// Images to `h`.
    pub encoder: Encoder,
    /// Codes to images.
    pub decoder: Decoder,
}

impl Tokenizer {
    /// Takes the tokenizer out of a checkpoint; every tensor of the file must be accounted for.
    ///
    /// # Errors
    /// Missing, misshapen or unexplained tensors; no EMA weights although [`Variant::Ema`] was asked for.
    pub fn load(weights: &Weights, variant: Variant, device: Device, kind: Kind) -> Result<Tokenizer, TokenizeError> {
        let params = weights.tokenizer_params(variant)?;
        let architecture = Architecture::infer(&params, weights.path())?;
        Ok(Tokenizer::from_params(architecture, &params.to_kind_and_device(kind, device)))
    }

    /// Builds the network over `params`, which [`Architecture::infer`] or [`Architecture::tensors`] vouch for.
    pub fn from_params(architecture: Architecture, params: &Params) -> Tokenizer {
        Tokenizer {
            encoder: Encoder::new(&architecture, params),
            decoder: Decoder::new(&architecture, params),
            architecture,
        }
    }

    /// Images f32 `[B, 3, H, W]` in [-1, 1] to int32 tokens `[B, H/f, W/f]`.
    pub fn encode(&self, images_bchw: &Tensor) -> Tensor {
        lfq::tokens_of(&self.encoder.forward(images_bchw))
    }

    /// Tokens `[B, h, w]` to images f32 `[B, 3, f*h, f*w]`, not clamped.
    pub fn decode(&self, tokens_bhw: &Tensor) -> Tensor {
        let kind = self.decoder.kind();
        let codes = lfq::codes_of(tokens_bhw, self.architecture.z_channels).to_kind(kind);
        self.decoder.forward(&codes).to_kind(Kind::Float)
    }
}
