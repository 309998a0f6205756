//! Codes back to images.

use super::Architecture;
use super::blocks::{Conv, NormSwish, ResBlock, Scope, plain_norm, run};
use super::cpu::CpuDecoder;
use crate::kernels::simd::Level;
use crate::weights::Params;
use std::sync::OnceLock;
use tch::{Kind, Tensor};

/// The convolutional decoder, conditioned on the code at every level.
#[derive(Debug)]
pub struct Decoder {
    pub(super) conv_in: Conv,
    pub(super) mid_block: Vec<ResBlock>,
    pub(super) up: Vec<Stage>,
    pub(super) norm_out: NormSwish,
    pub(super) conv_out: Conv,
    /// The CPU's kernels, made when they are first needed.
    kernels: Option<(Level, OnceLock<CpuDecoder>)>,
}

/// One resolution, coarsest first.
#[derive(Debug)]
pub(super) struct Stage {
    pub adaptive: AdaptiveNorm,
    pub blocks: Vec<ResBlock>,
    pub upsample: Option<Conv>,
}

impl Decoder {
    pub(super) fn new(architecture: &Architecture, params: &Params) -> Decoder {
        let scope = Scope::new(params, "decoder");
        let stage = |i: usize| {
            let up = scope.sub("up").sub(i);
            Stage {
                adaptive: AdaptiveNorm::new(&scope.sub("adaptive").sub(i)),
                blocks: ResBlock::stack(&up.sub("block"), architecture.num_res_blocks),
                upsample: (i > 0).then(|| Conv::new(&up.sub("upsample").sub("conv1"))),
            }
        };
        Decoder {
            conv_in: Conv::new(&scope.sub("conv_in")),
            mid_block: ResBlock::stack(&scope.sub("mid_block"), architecture.num_res_blocks),
            up: (0..architecture.ch_mult.len()).rev().map(stage).collect(),
            norm_out: NormSwish::new(&scope.sub("norm_out")),
            conv_out: Conv::new(&scope.sub("conv_out")),
            kernels: None,
        }
    }

    /// The same decoder, computed by the CPU's kernels.
    pub(super) fn with_kernels(self, level: Level) -> Decoder {
        Decoder { kernels: Some((level, OnceLock::new())), ..self }
    }

    /// The kind of the weights, which the code must have too.
    pub fn kind(&self) -> Kind {
        self.conv_in.kind()
    }

    /// Codes `[B, z, h, w]` of -1 / +1 to images `[B, 3, f*h, f*w]`, about [-1, 1], not clamped.
    pub fn forward(&self, code_bzhw: &Tensor) -> Tensor {
        if let Some((level, kernels)) = &self.kernels {
            return kernels.get_or_init(|| CpuDecoder::new(self, *level)).forward(code_bzhw);
        }
        let mut x = run(&self.mid_block, self.conv_in.forward(code_bzhw));
        for stage in &self.up {
            x = run(&stage.blocks, stage.adaptive.forward(&x, code_bzhw));
            if let Some(upsample) = &stage.upsample {
                x = depth_to_space(&upsample.forward(&x));
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&x))
    }
}

/// GroupNorm whose scale and shift come from the code's own statistics.
#[derive(Debug)]
pub(super) struct AdaptiveNorm {
    pub gamma: Linear,
    pub beta: Linear,
}

#[derive(Debug)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    fn new(scope: &Scope) -> Linear {
        Linear { weight: scope.tensor("weight"), bias: scope.tensor("bias") }
    }

    fn forward(&self, x_bz: &Tensor) -> Tensor {
        x_bz.linear(&self.weight, Some(&self.bias))
    }
}

impl AdaptiveNorm {
    fn new(scope: &Scope) -> AdaptiveNorm {
        AdaptiveNorm { gamma: Linear::new(&scope.sub("gamma")), beta: Linear::new(&scope.sub("beta")) }
    }

    fn forward(&self, x_bchw: &Tensor, code_bzhw: &Tensor) -> Tensor {
        let positions = [2i64, 3];
        let deviation_bz = (code_bzhw.var_dim(positions.as_slice(), true, false) + 1e-6).sqrt();
        let mean_bz = code_bzhw.mean_dim(positions.as_slice(), false, code_bzhw.kind());
        let per_channel = |t: Tensor| t.unsqueeze(-1).unsqueeze(-1);
        per_channel(self.gamma.forward(&deviation_bz)) * plain_norm(x_bchw) + per_channel(self.beta.forward(&mean_bz))
    }
}

/// `[B, 4C, h, w]` to `[B, C, 2h, 2w]` in DCR order: input channel = (dy * 2 + dx) * C + c. The memory layout stays:
/// channels last where the input is, else row-major.
fn depth_to_space(x_bchw: &Tensor) -> Tensor {
    let (b, c4, h, w) = x_bchw.size4().expect("a convolution's output has four dimensions");
    let c = c4 / 4;
    if x_bchw.is_contiguous() {
        let x_byxchw = x_bchw.view([b, 2, 2, c, h, w]);
        return x_byxchw.permute([0, 3, 4, 1, 5, 2]).reshape([b, c, 2 * h, 2 * w]);
    }
    let x_bhwyxc = x_bchw.permute([0, 2, 3, 1]).reshape([b, h, w, 2, 2, c]);
    x_bhwyxc.permute([0, 1, 3, 2, 4, 5]).reshape([b, 2 * h, 2 * w, c]).permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_to_space_is_dcr_not_pixel_shuffle() {
        // Two output channels; the value names the input channel.
        let x = Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([1, 8, 1, 1]);
        let y = depth_to_space(&x);
        assert_eq!(y.size(), [1, 2, 2, 2]);
        let at = |c, dy, dx| y.double_value(&[0, c, dy, dx]) as i64;
        assert_eq!((at(0, 0, 0), at(1, 0, 0), at(0, 0, 1), at(0, 1, 0), at(1, 1, 1)), (0, 1, 2, 4, 7));
    }

    #[test]
    fn depth_to_space_is_the_same_in_both_memory_layouts() {
        let x = Tensor::rand([2, 12, 3, 5], (Kind::Float, tch::Device::Cpu));
        let channels_last = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        assert!(!channels_last.is_contiguous());
        assert!(depth_to_space(&x).equal(&depth_to_space(&channels_last)));
    }
}
