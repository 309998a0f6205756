//! Tokens of a cache to pictures.

use super::model;
use crate::args::{DeviceArgs, Global, TokenizerArgs};
use crate::exit::CheckFailed;
use tch::{Kind, Tensor};
use tokengrid_cache::Manifest;
use tokengrid_sample::reconstruct::decode;
use tokengrid_tokenize::{Picture, Runtime, Tokenizer};

/// A tokenizer that fits a cache.
pub struct TokenDecoder {
    tokenizer: Tokenizer,
    runtime: Runtime,
    height: i64,
    width: i64,
}

impl TokenDecoder {
    /// Opens the tokenizer for the cache's grids. One that made other tokens than the cache's is a warning: its pictures may
    /// be nonsense, which is worth seeing, too. One of another number of bits is refused.
    pub fn open(
        manifest: &Manifest,
        weights: &TokenizerArgs,
        device: &DeviceArgs,
        global: &Global,
    ) -> anyhow::Result<TokenDecoder> {
        let runtime = model::runtime(device, global)?;
        let (tokenizer, info) = model::tokenizer(weights, &runtime)?;
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
        Ok(TokenDecoder { tokenizer, runtime, height: i64::from(grid.height), width: i64::from(grid.width) })
    }

    /// The picture of a grid, in raster order.
    pub fn picture(&self, tokens: &[u32]) -> Picture {
        let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let tokens_bhw = Tensor::from_slice(&tokens).view([1, self.height, self.width]).to_kind(Kind::Int64);
        decode(&self.tokenizer, &tokens_bhw.to_device(self.runtime.device)).remove(0)
    }
}
