//! The tokenizer network: names of its parameters, encoder and decoder.

mod architecture;
mod blocks;
mod cpu;
mod decoder;
mod encoder;
mod formula;
mod pictures;

use crate::weights::{Params, Variant, Weights};
use crate::{ModelError, lfq};
pub use architecture::Architecture;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use formula::{formula_params, formula_pixels};
pub use pictures::{Pass, decode, pass, tokens_tensor};
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
    /// Missing, misshapen or unexplained tensors; no EMA weights although [`Variant::Ema`] was requested.
    pub fn load(weights: &Weights, variant: Variant, device: Device, kind: Kind) -> Result<Tokenizer, ModelError> {
        let params = weights.tokenizer_params(variant)?;
        let architecture = Architecture::infer(&params, weights.path())?;
        Ok(Tokenizer::from_params(architecture, &params.to_kind_and_device(kind, device)).for_inference())
    }

    /// Builds the network over `params`, which [`Architecture::infer`] or [`Architecture::tensors`] vouch for. It computes
    /// with libtorch's operations, is differentiable, and follows changes of `params`.
    pub fn from_params(architecture: Architecture, params: &Params) -> Tokenizer {
        Tokenizer {
            encoder: Encoder::new(&architecture, params),
            decoder: Decoder::new(&architecture, params),
            architecture,
        }
    }

    /// The same network, as fast as it can be without gradients: fp32 on the CPU is computed by our own kernels, where the
    /// processor suits them. They copy the weights when they are first used, and do not see changes after that.
    pub fn for_inference(self) -> Tokenizer {
        match crate::kernels::simd::Level::detect() {
            Some(level) if self.encoder.suits_kernels() => Tokenizer {
                encoder: self.encoder.with_kernels(level),
                decoder: self.decoder.with_kernels(level),
                ..self
            },
            _ => self,
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
