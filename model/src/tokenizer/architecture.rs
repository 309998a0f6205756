//! The four hyper-parameters of a tokenizer, inferred from the names and shapes of its tensors.

use crate::ModelError;
use crate::weights::Params;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Hyper-parameters of the convolutional autoencoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Base channels; a multiple of 32 (the group count of every norm).
    pub ch: i64,
    /// Channel multiplier of every resolution level, finest first.
    pub ch_mult: Vec<i64>,
    /// Residual blocks per level.
    pub num_res_blocks: i64,
    /// Bits per token: log2 of the codebook size.
    pub z_channels: i64,
}

impl Architecture {
    /// A published architecture by its name: `imagenet_256_L` or `imagenet_128_L`.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for other names.
    pub fn named(name: &str) -> Result<Architecture, ModelError> {
        let ch_mult = match name {
            "imagenet_256_L" => vec![1, 1, 2, 2, 4],
            "imagenet_128_L" => vec![1, 2, 2, 4],
            _ => {
                let expected = "`imagenet_256_L` or `imagenet_128_L`";
                return Err(ModelError::Setting { what: "published architecture", value: name.into(), expected });
            }
        };
        Ok(Architecture { ch: 128, ch_mult, num_res_blocks: 4, z_channels: 18 })
    }

    /// Pixels per token along one side: `2^(levels - 1)`.
    pub fn factor(&self) -> u32 {
        1 << (self.ch_mult.len() - 1)
    }

    /// Channels of the activations that enter level `i` of the encoder.
    pub(super) fn channels_into(&self, level: usize) -> i64 {
        if level == 0 { self.ch } else { self.ch * self.ch_mult[level - 1] }
    }

    /// Channels at the output of level `i`.
    pub(super) fn channels_of(&self, level: usize) -> i64 {
        self.ch * self.ch_mult[level]
    }

    /// Channels at the coarsest level.
    pub(super) fn channels_mid(&self) -> i64 {
        self.channels_of(self.ch_mult.len() - 1)
    }

    /// Channels that enter decoder level `i` (levels run from the coarsest to 0).
    pub(super) fn channels_into_up(&self, level: usize) -> i64 {
        self.channels_of((level + 1).min(self.ch_mult.len() - 1))
    }

    /// Infers the hyper-parameters from `params` and checks every tensor of encoder and decoder against them.
    ///
    /// # Errors
    /// A missing, misshapen or unexplained tensor; `path` is only named in the message.
    pub fn infer(params: &Params, path: &Path) -> Result<Architecture, ModelError> {
        let missing = |name: &str| ModelError::MissingTensor {
            path: path.into(),
            name: name.into(),
            others: 0,
            wanted: "an Open-MAGVIT2 tokenizer",
        };
        let rows = |name: &str| params.shape(name).and_then(|shape| shape.first().copied());
        let ch = rows("encoder.conv_in.weight").filter(|&c| c > 0).ok_or_else(|| missing("encoder.conv_in.weight"))?;
        let z_channels = rows("encoder.conv_out.weight").ok_or_else(|| missing("encoder.conv_out.weight"))?;
        let levels = (0..16).map_while(|i| rows(&format!("encoder.down.{i}.block.0.conv1.weight")));
        let ch_mult: Vec<i64> = levels.map(|c| c / ch).collect();
        let num_res_blocks =
            (0..64).take_while(|j| rows(&format!("encoder.down.0.block.{j}.conv1.weight")).is_some()).count() as i64;
        if ch_mult.is_empty() {
            return Err(missing("encoder.down.0.block.0.conv1.weight"));
        }
        let architecture = Architecture { ch, ch_mult, num_res_blocks, z_channels };
        architecture.validate().map_err(|what| ModelError::Architecture { path: path.into(), what })?;
        params.check(&architecture.tensors(), path, "an Open-MAGVIT2 tokenizer")?;
        Ok(architecture)
    }

    /// Bounds within which the network can be built: norms of 32 groups, tokens that fit a cache.
    fn validate(&self) -> Result<(), String> {
        if self.ch % 32 != 0 || self.ch > 1 << 14 {
            return Err(format!("{} base channels; every norm needs a multiple of 32", self.ch));
        }
        if self.ch_mult.iter().any(|mult| !(1..=64).contains(mult)) || self.num_res_blocks < 1 {
            return Err(format!("channel multipliers {:?} with {} blocks", self.ch_mult, self.num_res_blocks));
        }
        if !(1..=24).contains(&self.z_channels) {
            return Err(format!("tokens of {} bits; 1 to 24 are possible", self.z_channels));
        }
        Ok(())
    }

    /// Name and shape of every parameter, encoder first.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let mut list = TensorList::default();
        list.encoder(self);
        list.decoder(self);
        list.0
    }

    /// Parameters of the encoder and of the decoder.
    pub fn num_params(&self) -> (i64, i64) {
        let count = |prefix: &str| {
            let tensors = self.tensors();
            let of_part = tensors.iter().filter(|(name, _)| name.starts_with(prefix));
            of_part.map(|(_, shape)| shape.iter().product::<i64>()).sum()
        };
        (count("encoder."), count("decoder."))
    }
}

/// Collects names and shapes in the order of the network.
#[derive(Default)]
struct TensorList(Vec<(String, Vec<i64>)>);

impl TensorList {
    fn add(&mut self, name: String, shape: &[i64]) {
        self.0.push((name, shape.to_vec()));
    }

    fn norm(&mut self, name: &str, channels: i64) {
        self.add(format!("{name}.weight"), &[channels]);
        self.add(format!("{name}.bias"), &[channels]);
    }

    fn conv(&mut self, name: &str, input: i64, output: i64, kernel: i64, bias: bool) {
        self.add(format!("{name}.weight"), &[output, input, kernel, kernel]);
        if bias {
            self.add(format!("{name}.bias"), &[output]);
        }
    }

    fn res_block(&mut self, name: &str, input: i64, output: i64) {
        self.norm(&format!("{name}.norm1"), input);
        self.conv(&format!("{name}.conv1"), input, output, 3, false);
        self.norm(&format!("{name}.norm2"), output);
        self.conv(&format!("{name}.conv2"), output, output, 3, false);
        if input != output {
            self.conv(&format!("{name}.nin_shortcut"), input, output, 1, false);
        }
    }

    fn res_blocks(&mut self, name: &str, count: i64, input: i64, output: i64) {
        for j in 0..count {
            self.res_block(&format!("{name}.{j}"), if j == 0 { input } else { output }, output);
        }
    }

    fn encoder(&mut self, a: &Architecture) {
        self.conv("encoder.conv_in", 3, a.ch, 3, false);
        for i in 0..a.ch_mult.len() {
            self.res_blocks(&format!("encoder.down.{i}.block"), a.num_res_blocks, a.channels_into(i), a.channels_of(i));
            if i + 1 < a.ch_mult.len() {
                self.conv(&format!("encoder.down.{i}.downsample"), a.channels_of(i), a.channels_of(i), 3, true);
            }
        }
        self.res_blocks("encoder.mid_block", a.num_res_blocks, a.channels_mid(), a.channels_mid());
        self.norm("encoder.norm_out", a.channels_mid());
        self.conv("encoder.conv_out", a.channels_mid(), a.z_channels, 1, true);
    }

    fn decoder(&mut self, a: &Architecture) {
        self.conv("decoder.conv_in", a.z_channels, a.channels_mid(), 3, true);
        self.res_blocks("decoder.mid_block", a.num_res_blocks, a.channels_mid(), a.channels_mid());
        for i in (0..a.ch_mult.len()).rev() {
            let (input, output) = (a.channels_into_up(i), a.channels_of(i));
            for side in ["gamma", "beta"] {
                self.add(format!("decoder.adaptive.{i}.{side}.weight"), &[input, a.z_channels]);
                self.add(format!("decoder.adaptive.{i}.{side}.bias"), &[input]);
            }
            self.res_blocks(&format!("decoder.up.{i}.block"), a.num_res_blocks, input, output);
            if i > 0 {
                self.conv(&format!("decoder.up.{i}.upsample.conv1"), output, 4 * output, 3, true);
            }
        }
        self.norm("decoder.norm_out", a.channels_of(0));
        self.conv("decoder.conv_out", a.channels_of(0), 3, 3, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes() {
        let large_256 = Architecture::named("imagenet_256_L").unwrap();
        assert_eq!((large_256.num_params(), large_256.factor()), ((49_751_442, 65_376_387), 16));
        let large_128 = Architecture::named("imagenet_128_L").unwrap();
        assert_eq!((large_128.num_params(), large_128.factor()), ((48_422_162, 63_599_491), 8));
    }
}
