//! Checkpoints: where tensors come from.
//!
//! [`Weights`] is an opened file: names, shapes and where the bytes lie. [`Params`] are tensors taken out of it,
//! under the model's own names.

mod file;
mod params;
mod pickle;
mod safetensors;
mod torch_zip;

pub use file::{Entry, Weights};
pub use params::{Params, Variant};
pub use safetensors::save_safetensors;
