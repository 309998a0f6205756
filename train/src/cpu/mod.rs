//! What kernels on the CPU share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`simd`] | functions compiled for several instruction sets |
//! | [`threads`] | work on libtorch's own threads |

pub mod simd;
pub mod threads;
