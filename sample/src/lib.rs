//! Sampling from the autoregressive model: tokens, pictures, arrays.
//!
//! | module | what it is for |
//! |---|---|
//! | [`sampler`] | classes in, token grids out: key-value cache, guidance, sampling |
//! | `decoder` | one token of a batch: the model as the sampler sees it |
//! | [`guidance`] | classifier-free guidance: which sequences it needs, its scale over the positions |
//! | `draw`, `filter` | from a row of logits to a token: temperature, top-k, top-p, inverse distribution |
//! | `host`, `device` | the loop over positions; tokens drawn on the host, or on the device |
//! | [`presets`] | settings of the published results |
//! | [`memory`] | whether a batch fits |
//! | `diagnostics`, `captions` | maps of the distributions that tokens were drawn from; captions of pictures |
//! | [`job`] | many images: batches, pictures, tokens and arrays on disk, resumable |
//! | [`arrays`] | `.npy` and `.npz` files |

pub mod arrays;
mod captions;
mod decoder;
mod device;
mod diagnostics;
mod draw;
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
pub use error::SampleError;
pub use guidance::Schedule;
pub use job::{Outputs, SampleJob, SampleOutcome};
pub use sampler::{Sampler, SamplerConfig};
