//! Convolution, group norm, residual block: the layers that encoder and decoder share.
//!
//! Activations are row-major everywhere. libtorch's CPU group norm sums row-major activations with a compensated scheme and
//! channels-last ones naively (2e-4 off at 256 x 256, against 7e-7), and its backward pass takes twice as long on the latter. Its
//! CUDA group norm takes and returns row-major ones only: channels last, which cuDNN prefers in half precision, would transpose
//! twice between every norm and convolution, as cuDNN itself does where it needs to. Without gradients the activation function
//! works in place.

use crate::weights::Params;
use tch::Tensor;

const GROUPS: i64 = 32;
const EPS: f64 = 1e-6;

/// A part of the parameter names: `scope.sub("conv1")` is the layer `<prefix>.conv1`.
pub(super) struct Scope<'a> {
    params: &'a Params,
    prefix: String,
}

impl<'a> Scope<'a> {
    pub(super) fn new(params: &'a Params, prefix: &str) -> Self {
        Scope { params, prefix: prefix.into() }
    }

    pub(super) fn sub(&self, name: impl std::fmt::Display) -> Scope<'a> {
        Scope { params: self.params, prefix: format!("{}.{name}", self.prefix) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.params.shape(&format!("{}.{name}", self.prefix)).is_some()
    }

    /// The parameter itself, shared.
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.params.get(&format!("{}.{name}", self.prefix)).shallow_clone()
    }
}

/// Swish, `x * sigmoid(x)`; consumes its input so that inference can reuse the memory.
pub(super) fn swish(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}

/// 2-D convolution that keeps the size ("same" padding) or halves it.
#[derive(Debug)]
pub(super) struct Conv {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub stride: i64,
}

impl Conv {
    pub(super) fn new(scope: &Scope) -> Conv {
        let bias = scope.has("bias").then(|| scope.tensor("bias"));
        Conv { weight: scope.tensor("weight"), bias, stride: 1 }
    }

    pub(super) fn halving(scope: &Scope) -> Conv {
        Conv { stride: 2, ..Conv::new(scope) }
    }

    pub(crate) fn forward(&self, x_bchw: &Tensor) -> Tensor {
        let padding = self.weight.size()[2] / 2;
        x_bchw.conv2d(&self.weight, self.bias.as_ref(), [self.stride; 2], [padding; 2], [1, 1], 1)
    }

    pub(super) fn kind(&self) -> tch::Kind {
        self.weight.kind()
    }

    /// Whether the CPU's own kernels can take the place of libtorch's: fp32 on the CPU, and no gradients.
    pub(crate) fn suits_kernels(&self) -> bool {
        self.kind() == tch::Kind::Float && self.weight.device() == tch::Device::Cpu && !self.weight.requires_grad()
    }
}

/// GroupNorm of 32 groups with affine parameters, followed by swish.
#[derive(Debug)]
pub(super) struct NormSwish {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl NormSwish {
    pub(super) fn new(scope: &Scope) -> NormSwish {
        NormSwish { weight: scope.tensor("weight"), bias: scope.tensor("bias") }
    }

    pub(super) fn forward(&self, x_bchw: &Tensor) -> Tensor {
        swish(x_bchw.group_norm(GROUPS, Some(&self.weight), Some(&self.bias), EPS, true))
    }
}

/// GroupNorm without its own parameters.
pub(super) fn plain_norm(x_bchw: &Tensor) -> Tensor {
    x_bchw.group_norm::<Tensor>(GROUPS, None, None, EPS, true)
}

/// norm, swish, conv, norm, swish, conv; plus the input.
#[derive(Debug)]
pub(super) struct ResBlock {
    pub norm1: NormSwish,
    pub conv1: Conv,
    pub norm2: NormSwish,
    pub conv2: Conv,
    pub nin_shortcut: Option<Conv>,
}

impl ResBlock {
    pub(super) fn new(scope: &Scope) -> ResBlock {
        ResBlock {
            norm1: NormSwish::new(&scope.sub("norm1")),
            conv1: Conv::new(&scope.sub("conv1")),
            norm2: NormSwish::new(&scope.sub("norm2")),
            conv2: Conv::new(&scope.sub("conv2")),
            nin_shortcut: scope.has("nin_shortcut.weight").then(|| Conv::new(&scope.sub("nin_shortcut"))),
        }
    }

    /// The blocks `<scope>.0 .. <scope>.count`.
    pub(super) fn stack(scope: &Scope, count: i64) -> Vec<ResBlock> {
        (0..count).map(|j| ResBlock::new(&scope.sub(j))).collect()
    }

    pub(super) fn forward(&self, x_bchw: &Tensor) -> Tensor {
        let y = self.conv1.forward(&self.norm1.forward(x_bchw));
        let mut y = self.conv2.forward(&self.norm2.forward(&y));
        match &self.nin_shortcut {
            Some(conv) => y.g_add_(&conv.forward(x_bchw)),
            None => y.g_add_(x_bchw),
        }
    }
}

/// Applies `blocks` one after the other.
pub(super) fn run(blocks: &[ResBlock], x_bchw: Tensor) -> Tensor {
    blocks.iter().fold(x_bchw, |x, block| block.forward(&x))
}
