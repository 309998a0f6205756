//! The autoregressive model: from the class and earlier tokens to the two parts of the next token.
//!
//! | module | what it is for |
//! |---|---|
//! | `config` | hyper-parameters, presets |
//! | `weights` | names, initial values, and where a checkpoint keeps them |
//! | `description`, `metadata` | what a checkpoint says about its model; the same in the metadata of a file |
//! | `model` | the network by libtorch: teacher forcing and autograd |
//! | `loss` | cross entropy of a head, with or without its logits |
//! | `block`, `intra`, `rope` | the block over positions, the one over sub-tokens, rotary positions |
//! | `decode` | one position of each sequence at a time, by the CPU's kernels |
//! | `values` | parameters as matrices of the kernels |

mod block;
mod config;
mod decode;
mod description;
mod intra;
mod loss;
mod metadata;
mod model;
mod rope;
mod values;
mod weights;

pub use config::{ModelConfig, PRESETS, preset};
pub use decode::HostDecoder;
pub use description::{Description, Known};
pub use loss::CHUNK_LOGITS;
pub use metadata::of as metadata_of;
pub use model::{ArModel, Losses};
pub use rope::Rotation;
pub use weights::{ArWeights, initial_params};
