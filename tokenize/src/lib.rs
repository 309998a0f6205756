//! The image tokenizer of Open-MAGVIT2, and the job that runs it once over a data set.
//!
//! | module | what it is for |
//! |---|---|
//! | [`weights`] | checkpoints: `.ckpt` pickles read without executing them, `.safetensors`, raw or EMA variant |
//! | [`model`] | encoder and decoder, the architecture inferred from tensor shapes |
//! | [`lfq`] | lookup-free quantization: signs, tokens, codes |
//! | [`picture`] | PNG files and grids of pictures |
//! | [`pixels`] | bytes to model input and back |
//! | [`runtime`] | device, precision and thread settings shared by everything that computes |
//! | [`simd`] | vectors of f32 in the widths that processors have, for kernels on the CPU |
//! | [`job`] | the tokenize job: images in, cache out |
//! | [`tiny`] | the small tokenizer that is shipped with the program |
//!
//! Shapes are PyTorch's: activations `[B, C, H, W]`, convolution weights `[out, in, kh, kw]`.

pub mod error;
pub mod job;
pub mod lfq;
pub mod model;
pub mod picture;
pub mod pixels;
pub mod runtime;
pub mod simd;
pub mod tiny;
pub mod weights;

pub use error::TokenizeError;
pub use job::{Drift, EncodedImage, EncodedView, Job, Outcome, Progress, Tokens, ViewEncoder};
pub use model::{Architecture, Tokenizer};
pub use picture::Picture;
pub use runtime::{Precision, Runtime};
pub use weights::{Params, Variant, Weights};
