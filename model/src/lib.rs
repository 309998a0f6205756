//! The networks of Open-MAGVIT2: their checkpoints, where they are computed, the image tokenizer and the autoregressive model.
//!
//! | module | what it is for |
//! |---|---|
//! | [`weights`] | checkpoints: `.ckpt` pickles read without executing them, `.safetensors`, raw or EMA variant |
//! | [`checkpoints`] | the newest intact checkpoint of a run |
//! | [`runtime`] | device, precision and thread settings shared by everything that computes |
//! | [`tokenizer`] | encoder and decoder, the architecture inferred from tensor shapes; pictures through both |
//! | [`lfq`] | lookup-free quantization: signs, tokens, codes |
//! | [`pixels`] | bytes to model input and back |
//! | [`tiny`] | the small tokenizer that is shipped with the program |
//! | [`ar`] | the autoregressive model and its decoder |
//! | [`perceptual`] | LPIPS, the perceptual distance of images |
//! | [`kernels`] | kernels on the CPU: SIMD, products of matrices, threads |
//! | [`guard`] | failures of libtorch as errors |
//! | [`graph`] | work that a GPU is given as one |
//! | [`host_reads`] | how often the host waits for a device |
//! | [`transfer`] | copies to a device and back that nobody waits for |
//! | [`rng`] | counter-based random numbers |
//! | [`picture`] | PNG files and grids of pictures |
//!
//! Nothing here writes a file, and nothing knows a cache: files come as paths to read, and go as bytes.
//! Shapes are PyTorch's: activations `[B, C, H, W]`, convolution weights `[out, in, kh, kw]`.

pub mod ar;
pub mod checkpoints;
mod cuda;
pub mod error;
mod font;
mod foreign;
pub mod graph;
pub mod guard;
pub mod host_reads;
pub mod kernels;
pub mod lfq;
pub mod perceptual;
pub mod picture;
pub mod pixels;
pub mod rng;
pub mod runtime;
mod section;
pub mod tiny;
pub mod tokenizer;
pub mod transfer;
pub mod weights;

pub use error::ModelError;
pub use font::FONT;
pub use picture::Picture;
pub use runtime::{Precision, Route, Runtime, num_gpus};
pub use tokenizer::{Architecture, Tokenizer};
pub use weights::{Params, Variant, Weights};
