//! What kernels on the CPU share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`simd`] | vectors of f32 in the widths that processors have |
//! | [`math`] | functions compiled for several instruction sets; exp, sums |
//! | [`gemm`] | products of matrices by all threads |
//! | [`tile`], [`panels`] | the tile in registers that they are made of; the right factor in the order of the tiles |
//! | `linear` | layers whose weights stay: few rows at a time |
//! | [`matrix`] | matrices over a tensor's memory |
//! | [`elementwise`] | norms, rotations, gates, softmax, cross entropy, dropout |
//! | [`threads`] | work on libtorch's own threads |

pub mod elementwise;
pub mod gemm;
pub(crate) mod linear;
pub mod math;
pub mod matrix;
pub mod panels;
pub mod simd;
pub mod threads;
pub mod tile;
