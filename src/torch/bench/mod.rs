//! `tokengrid bench ...` for the stages that need libtorch.

pub(super) mod encode;
pub(super) mod exchange;
pub(super) mod sample;
pub(super) mod train;
