//! Sampling from the autoregressive model, and pictures of what comes out.
//!
//! | module | what it is for |
//! |---|---|
//! | [`sampler`] | classes in, token grids out: key-value cache, guidance, sampling |
//! | [`decoder`] | one token of a batch: the model as the sampler sees it |
//! | [`guidance`] | with and without a class, and how strongly |
//! | [`draw`], `filter` | a row of logits in, a token out: temperature, top-k, top-p, inverse distribution |
//! | `host`, `device` | the loop over positions; tokens drawn on the host, or where the logits are |
//! | [`presets`] | settings of the published results |
//! | [`memory`] | whether a batch fits |
//! | `diagnostics`, `captions` | what tokens were drawn from, as pictures; words on pictures |
//! | [`job`] | many images: batches, pictures, tokens and arrays on disk, resumable |
//! | [`arrays`] | `.npy` and `.npz` files |

pub mod arrays;
mod captions;
pub mod decoder;
mod device;
mod diagnostics;
pub mod draw;
pub mod error;
mod filter;
pub mod guidance;
mod host;
pub mod job;
mod late_file;
pub mod memory;
pub mod presets;
pub mod sampler;

pub use arrays::ArrayError;
pub use decoder::{Decoder, TorchDecoder};
pub use error::SampleError;
pub use guidance::Schedule;
pub use job::{Outputs, SampleJob, SampleOutcome};
pub use sampler::{Sampler, SamplerConfig};
