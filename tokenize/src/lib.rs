//! The tokenize job: images in, token cache out, once over a data set.

pub mod error;
pub mod job;

pub use error::TokenizeError;
pub use job::{Drift, EncodedImage, EncodedView, Job, Outcome, Progress, Tokens, ViewEncoder};
