//! The model on the CPU, written out in fp32: a training step, forward and backward, and the steps of a sampler.
//!
//! libtorch's autograd runs a step of this model as some hundred operations, and on a CPU half of its time goes to those
//! that are no matrix product: norms, rotations, gates, cross entropy, their backward passes and the memory of all of them.
//! Here each of these is one kernel, matrix products and attention are our own ([`crate::cpu::gemm`]: libtorch's library does
//! not use what all processors have), weight gradients are written where the optimizer reads them, and activations have their
//! memory once and for all.
//!
//! | file | what it is for |
//! |---|---|
//! | `model` | the step, top to bottom: embeddings, stacks, heads, and back |
//! | `decode` | one position of each sequence, with keys and values of the earlier ones |
//! | `spatial` | the block over grid positions |
//! | `intra` | the block over the two sub-tokens of a position |
//! | `attention` | causal attention with rotary positions, head by head |
//! | `ffn` | the gated feed-forward network that both end with |
//! | `kernels` | what is neither a matrix product nor attention |
//! | `norm`, `weight`, `matrix` | norms; parameters beside gradients; memory that both sides see |
//!
//! Values equal those of [`ArModel`](super::ArModel) up to rounding, which `tests` checks gradient by gradient. Shape
//! suffixes: `b` batch, `t` positions, `p` = b * t, `h` heads, `d` width, `f` inner width, `v` vocabulary.

mod attention;
mod decode;
mod ffn;
mod intra;
mod kernels;
mod matrix;
mod model;
mod norm;
mod spatial;
mod weight;

pub use decode::HostDecoder;
pub use model::{FusedStep, num_stages, stage_of};
