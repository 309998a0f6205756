//! Checkpoints: where tensors come from.
//!
//! [`Weights`] is an opened file: names, shapes and where the bytes lie. [`Params`] are tensors taken out of it,
//! under the model's own names.

mod eight_bit;
mod file;
mod fingerprint;
mod finite;
#[doc(hidden)]
pub mod fuzzing;
mod identify;
mod index;
mod layout;
mod legacy;
mod naming;
mod params;
mod pickle;
mod safetensors;
mod state_dict;
mod torch_zip;
mod zip_directory;

pub(crate) use eight_bit::expanded;
pub use file::Weights;
pub use fingerprint::tensors_fingerprint;
pub use index::{Entry, Format};
pub use layout::{AR_PREFIX, FROZEN_PREFIX, Part};
pub use params::{Params, Variant};
pub use safetensors::{pt_metadata, to_safetensors};
