//! `tokengrid cache ...` for the commands that encode images or decode tokens.

pub(super) mod bit_order;
mod by_key;
pub(super) mod check;
pub(super) mod identity;
pub(super) mod near;
mod origin;
pub(super) mod picture;
pub(super) mod repair;

pub(super) use origin::with_job;
