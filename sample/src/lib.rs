//! Sampling from the autoregressive model, and pictures of what comes out.
//!
//! | module | what it is for |
//! |---|---|
//! | [`sampler`] | classes in, token grids out: key-value cache, guidance, sampling |
//! | [`filter`] | temperature, top-k, top-p |
//! | [`job`] | many images: batches, pictures, tokens and arrays on disk, resumable |
//! | [`arrays`] | `.npy` and `.npz` files |
//! | [`reconstruct`] | images through the tokenizer and back |

pub mod arrays;
pub mod error;
pub mod filter;
pub mod job;
pub mod reconstruct;
pub mod sampler;

pub use error::SampleError;
pub use job::{SampleJob, SampleOutcome};
pub use sampler::{Sampler, SamplerConfig};
