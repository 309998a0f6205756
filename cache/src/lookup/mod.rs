//! A few rows of a large cache at once: an index of keys and labels beside it, and shards that are opened when a row of theirs
//! is asked for.

mod block;
pub(crate) mod key_index;
pub(crate) mod reader;
mod signature;
mod table;
pub(crate) mod write;
