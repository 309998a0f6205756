//! `tokengrid cache ...` where images are encoded or tokens decoded.

mod by_key;
pub mod check;
mod origin;
pub mod picture;
pub mod repair;

pub use origin::with_job;
