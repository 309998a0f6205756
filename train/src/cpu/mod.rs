//! What kernels on the CPU share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`gemm`] | products of matrices by all threads |
//! | `tile`, `panels` | the tile in registers that they are made of; the right factor in the order of the tiles |
//! | [`linear`] | layers whose weights stay: few rows at a time |
//! | [`simd`] | functions compiled for several instruction sets |
//! | [`threads`] | work on libtorch's own threads |

pub mod gemm;
pub mod linear;
pub(crate) mod panels;
pub mod simd;
pub mod threads;
pub(crate) mod tile;
