//! `tokengrid bench ...` of the stages that need libtorch.

pub mod encode;
pub mod exchange;
pub mod sample;
pub mod train;
