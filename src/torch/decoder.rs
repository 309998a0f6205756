//! Decodes tokens of a cache to pictures.

use super::model;
use crate::args::{DeviceArgs, Global, TokenizerArgs};
use crate::exit::CheckFailed;
use tch::{Kind, Tensor};
use tokengrid_cache::Manifest;
use tokengrid_model::tokenizer::decode;
use tokengrid_model::{Picture, Runtime, Tokenizer};
use tokengrid_tokenize::job::fingerprint_of_all;

/// A tokenizer with the bits and grid of a cache.
pub(super) struct TokenDecoder {
    tokenizer: Tokenizer,
    runtime: Runtime,
    fingerprint: String,
    height: i64,
    width: i64,
}

impl TokenDecoder {
    /// Opens the tokenizer for the cache's grids. A tokenizer with another fingerprint than the cache's is a warning, since its
    /// pictures may still be of interest. One with another number of bits is an error.
    pub(super) fn open(
        manifest: &Manifest,
        weights: &TokenizerArgs,
        device: &DeviceArgs,
        global: &Global,
    ) -> anyhow::Result<TokenDecoder> {
        let runtime = model::runtime(device, global)?;
        let (tokenizer, info, params) = model::tokenizer_and_params(weights, &runtime)?;
        let (grid, bits) = (manifest.grid_spec(), tokenizer.architecture.z_channels);
        if i64::from(grid.bits) != bits {
            let text = format!("the tokenizer {} has tokens of {bits} bits, the cache of {}", info.name, grid.bits);
            return Err(CheckFailed(text).into());
        }
        let made_with = &manifest.tokenizer;
        if made_with.fingerprint != info.fingerprint {
            tracing::warn!(
                "the cache was made with another tokenizer ({}, {}) than {}: pictures may be wrong",
                made_with.name,
                made_with.variant,
                info.name
            );
        }
        let (height, width) = (i64::from(grid.height), i64::from(grid.width));
        Ok(TokenDecoder { tokenizer, runtime, fingerprint: fingerprint_of_all(&params), height, width })
    }

    /// Identifies everything that pictures depend on: all weights, the decoder's too; a cache's fingerprint is of the encoder.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The picture of a grid, whose tokens are in raster order.
    pub(super) fn picture(&self, tokens: &[u32]) -> Picture {
        let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let tokens_bhw = Tensor::from_slice(&tokens).view([1, self.height, self.width]).to_kind(Kind::Int64);
        decode(&self.tokenizer, &tokens_bhw.to_device(self.runtime.device), self.runtime).remove(0)
    }
}
