//! Making a damaged cache whole again, to the same bytes.
//!
//! What is intact is kept: intact row groups of a damaged shard are read from it, and only the others are encoded again.
//! The repaired file must be, byte for byte, the one that the manifest vouches for; otherwise nothing is changed. A
//! damaged manifest is made again from the shards' footers, a damaged quarantine list likewise.

pub(crate) mod keys;
pub(crate) mod manifest;
pub(crate) mod report;
pub(crate) mod shard;
pub(crate) mod whole;
