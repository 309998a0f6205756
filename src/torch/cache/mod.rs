//! `tokengrid cache ...` where images are encoded or tokens decoded.

pub(super) mod bit_order;
mod by_key;
pub(super) mod check;
mod origin;
pub(super) mod picture;
pub(super) mod repair;

pub(super) use origin::with_job;
