//! Caches out of caches: one of several, and a part of one.

mod attachments;
pub(crate) mod input;
pub(crate) mod jobs;
pub(crate) mod merge;
pub(crate) mod shared_keys;
pub(crate) mod subset;
