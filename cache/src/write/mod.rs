//! Writing a cache so that it can be killed at any moment and continued.
//!
//! Rows gather in a row group in memory. A full one is written as a *part* (a shard of one row group, under a hidden
//! name); when there are enough of them they are written together as a shard, and the parts go. Both are written under
//! a temporary name, synced, read back and renamed, so what has its final name is whole. A job that is run again keeps
//! the existing shards and parts and continues after them: at most one row group is repeated.
//!
//! When a rank has pushed all its images it leaves a done-marker with the entries of its shards. Whichever rank then
//! finds all markers present publishes the quarantine list and the manifest, under the folder's lock.

pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod encode;
pub(crate) mod folder;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod publish;
pub(crate) mod remove;
pub(crate) mod resume;
pub(crate) mod writer;
