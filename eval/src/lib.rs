//! Evaluation of pictures against others, pair by pair and as sets.
//!
//! | module | what it is for |
//! |---|---|
//! | [`reconstruct`] | one image through the tokenizer and back |
//! | [`reconstruction`] | a tokenizer over a data set: rFID, PSNR, SSIM, LPIPS, use of the codebook |
//! | [`samples`] | a set of pictures against another: FID, sFID, inception score, precision and recall |
//! | [`collect`] | pictures through the network, into the sums that those metrics need |
//! | `peers` | the processes that share an evaluation |
//! | `measure`, `wire` | every picture is measured once, by one of them; how results are exchanged |
//! | [`extremes`] | the best and the worst reconstructions |
//! | [`progress`] | progress and cancellation |
//! | `pass_memory` | whether a whole picture fits through the tokenizer |
//! | [`pictures`] | the pictures themselves: any source, or an `.npz` file; streamed |
//! | [`inception`] | the network: pictures to pool3 features, logits and spatial features |
//! | `moments` | mean and covariance of features that are never held together |
//! | `frechet` | the Frechet distance of two of them |
//! | [`score`] | the inception score |
//! | [`manifold`] | precision and recall |
//! | [`ssim`] | structural similarity |
//! | [`perceptual`] | LPIPS over many pairs; the nets are in the crate `model` |
//! | [`codebook`] | use of codes and bits |
//! | [`statistics`] | `.npz` files of statistics, as pytorch-fid and the ADM suite save them |

pub mod codebook;
pub mod collect;
pub mod error;
pub mod extremes;
mod frechet;
pub mod inception;
pub mod manifold;
mod measure;
mod moments;
mod pass_memory;
mod peers;
pub mod perceptual;
pub mod pictures;
pub mod progress;
pub mod reconstruct;
pub mod reconstruction;
pub mod samples;
pub mod score;
pub mod ssim;
pub mod statistics;

/// Limit in bytes of the pictures in a batch of any size: large pictures would fill the memory.
const BATCH_BYTES_MAX: usize = 256 << 20;

pub use error::EvalError;
pub use frechet::frechet_distance;
pub use inception::{Inception, Protocol};
pub use moments::{Gaussian, Moments};
pub use peers::{Alone, Peers};
