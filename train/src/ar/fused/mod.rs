//! The fused training step: forward and backward of the model on the CPU in fp32.
//!
//! libtorch's autograd runs a step of this model as some hundred operations, and on a CPU half of its time is spent on those
//! that are not matrix products: norms, rotations, gates, cross entropy, their backward passes and the memory of all of them.
//! Here each of these is one kernel, matrix products and attention are our own ([`tokengrid_model::kernels::gemm`]: libtorch's
//! library does not use what all processors have), weight gradients are written where the optimizer reads them, and activations
//! are allocated once.
//!
//! | file | what it is for |
//! |---|---|
//! | `model` | the step, top to bottom: embeddings, stacks, heads, and back |
//! | `spatial` | the block over grid positions |
//! | `intra` | the block over the two sub-tokens of a position |
//! | `attention` | causal attention with rotary positions, head by head |
//! | `ffn` | the gated feed-forward network that both end with |
//! | `norm`, `weight` | norms; parameters beside gradients |
//!
//! Values equal those of [`ArModel`](tokengrid_model::ar::ArModel) up to rounding, which `tests` checks gradient by gradient.
//! Shape suffixes: `b` batch, `t` positions, `p` = b * t, `h` heads, `d` width, `f` inner width, `v` vocabulary.

mod attention;
mod ffn;
mod intra;
mod model;
mod norm;
mod spatial;
mod weight;

pub use model::FusedStep;
pub(super) use model::{num_stages, stage_of};
