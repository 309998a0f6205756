//! Images to `h`, the values whose signs are the token.

use super::Architecture;
use super::blocks::{Conv, NormSwish, ResBlock, Scope, run};
use super::cpu::CpuEncoder;
use crate::kernels::simd::Level;
use crate::weights::Params;
use std::sync::OnceLock;
use tch::Tensor;

/// The convolutional encoder.
#[derive(Debug)]
pub struct Encoder {
    pub(super) conv_in: Conv,
    pub(super) down: Vec<Stage>,
    pub(super) mid_block: Vec<ResBlock>,
    pub(super) norm_out: NormSwish,
    pub(super) conv_out: Conv,
    /// The CPU's kernels, made when they are first needed.
    kernels: Option<(Level, OnceLock<CpuEncoder>)>,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub blocks: Vec<ResBlock>,
    pub downsample: Option<Conv>,
}

impl Encoder {
    pub(super) fn new(architecture: &Architecture, params: &Params) -> Encoder {
        let scope = Scope::new(params, "encoder");
        let stage = |i: usize| {
            let scope = scope.sub("down").sub(i);
            Stage {
                blocks: ResBlock::stack(&scope.sub("block"), architecture.num_res_blocks),
                downsample: (i + 1 < architecture.ch_mult.len()).then(|| Conv::halving(&scope.sub("downsample"))),
            }
        };
        Encoder {
            conv_in: Conv::new(&scope.sub("conv_in")),
            down: (0..architecture.ch_mult.len()).map(stage).collect(),
            mid_block: ResBlock::stack(&scope.sub("mid_block"), architecture.num_res_blocks),
            norm_out: NormSwish::new(&scope.sub("norm_out")),
            conv_out: Conv::new(&scope.sub("conv_out")),
            kernels: None,
        }
    }

    /// The same encoder, computed by the CPU's kernels.
    pub(super) fn with_kernels(self, level: Level) -> Encoder {
        Encoder { kernels: Some((level, OnceLock::new())), ..self }
    }

    pub(super) fn suits_kernels(&self) -> bool {
        self.conv_in.suits_kernels()
    }

    /// Images `[B, 3, H, W]` in [-1, 1] to `h [B, z, H/f, W/f]`. H and W must be multiples of the factor f.
    pub fn forward(&self, images_bchw: &Tensor) -> Tensor {
        if let Some((level, kernels)) = &self.kernels {
            return kernels.get_or_init(|| CpuEncoder::new(self, *level)).forward(images_bchw);
        }
        let mut x = self.conv_in.forward(&images_bchw.to_kind(self.conv_in.kind()));
        for stage in &self.down {
            x = run(&stage.blocks, x);
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(&x);
            }
        }
        let x = run(&self.mid_block, x);
        self.conv_out.forward(&self.norm_out.forward(&x)).to_kind(tch::Kind::Float)
    }
}
