//! What kernels on the CPU share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`gemm`] | products of matrices |
//! | [`linear`] | layers whose weights stay: few rows at a time |
//! | [`simd`] | functions compiled for several instruction sets |
//! | [`threads`] | work on libtorch's own threads |

pub mod gemm;
pub mod linear;
pub mod simd;
pub mod threads;
