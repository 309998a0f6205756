//! What is in a cache and how it is written down: rows, jobs, names, the manifest, the list of inputs without rows.
//!
//! Parquet files themselves are [`crate::shard`]'s.

pub(crate) mod attached;
pub(crate) mod bit_order;
pub(crate) mod frame_key;
pub(crate) mod grid;
pub(crate) mod hash;
pub(crate) mod identity;
pub(crate) mod job;
pub(crate) mod job_file;
pub(crate) mod manifest;
pub(crate) mod manifest_check;
pub(crate) mod margins;
pub(crate) mod names;
pub(crate) mod pack;
pub(crate) mod quarantine;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod signature;
pub(crate) mod split;
pub(crate) mod text;
