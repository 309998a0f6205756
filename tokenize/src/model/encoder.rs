//! Images to `h`, the values whose signs are the token.

use super::Architecture;
use super::blocks::{Conv, NormSwish, ResBlock, Scope, run};
use crate::weights::Params;
use tch::Tensor;

/// The convolutional encoder.
#[derive(Debug)]
pub struct Encoder {
    conv_in: Conv,
    down: Vec<Level>,
    mid_block: Vec<ResBlock>,
    norm_out: NormSwish,
    conv_out: Conv,
}

#[derive(Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    downsample: Option<Conv>,
}

impl Encoder {
    pub(super) fn new(architecture: &Architecture, params: &Params) -> Encoder {
        let scope = Scope::new(params, "encoder");
        let level = |i: usize| {
            let scope = scope.sub("down").sub(i);
            Level {
                blocks: ResBlock::stack(&scope.sub("block"), architecture.num_res_blocks),
                downsample: (i + 1 < architecture.ch_mult.len()).then(|| Conv::halving(&scope.sub("downsample"))),
            }
        };
        Encoder {
            conv_in: Conv::new(&scope.sub("conv_in")),
            down: (0..architecture.ch_mult.len()).map(level).collect(),
            mid_block: ResBlock::stack(&scope.sub("mid_block"), architecture.num_res_blocks),
            norm_out: NormSwish::new(&scope.sub("norm_out")),
            conv_out: Conv::new(&scope.sub("conv_out")),
        }
    }

    /// Images `[B, 3, H, W]` in [-1, 1] to `h [B, z, H/f, W/f]`. H and W must be multiples of the factor f.
    pub fn forward(&self, images_bchw: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(&images_bchw.to_kind(self.conv_in.kind()));
        for level in &self.down {
            x = run(&level.blocks, x);
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(&x);
            }
        }
        let x = run(&self.mid_block, x);
        self.conv_out.forward(&self.norm_out.forward(&x)).to_kind(tch::Kind::Float)
    }
}
