//! Sampling from the autoregressive model, and pictures of what comes out.
//!
//! | module | what it is for |
//! |---|---|
//! | [`sampler`] | classes in, token grids out: key-value cache, guidance, sampling |
//! | [`decoder`] | one token of a batch: the model as the sampler sees it |
//! | [`guidance`] | with and without a class, and how strongly |
//! | [`draw`], [`filter`] | a row of logits in, a token out: temperature, top-k, top-p, inverse distribution |
//! | `host`, `device` | the loop over positions; tokens drawn on the host, or where the logits are |
//! | [`presets`] | settings of the published results |
//! | [`memory`], [`pass_memory`] | whether a batch fits; whether a whole picture fits through the tokenizer |
//! | [`diagnostics`], `captions` | what tokens were drawn from, as pictures; words on pictures |
//! | [`job`] | many images: batches, pictures, tokens and arrays on disk, resumable |
//! | [`eval`] | FID, inception score, PSNR, SSIM, LPIPS, use of the codebook |
//! | [`arrays`] | `.npy` and `.npz` files |
//! | [`reconstruct`] | images through the tokenizer and back |

pub mod arrays;
mod captions;
pub mod decoder;
mod device;
pub mod diagnostics;
pub mod draw;
pub mod error;
pub mod eval;
pub mod filter;
pub mod guidance;
mod host;
pub mod job;
mod late_file;
pub mod memory;
pub mod pass_memory;
pub mod presets;
pub mod reconstruct;
pub mod sampler;

pub use decoder::{Decoder, TorchDecoder};
pub use error::SampleError;
pub use guidance::Schedule;
pub use job::{Outputs, SampleJob, SampleOutcome};
pub use sampler::{Sampler, SamplerConfig};
