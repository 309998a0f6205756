//! Caches in object stores: read by way of the stage folder, written by way of a working folder.
//!
//! | module | what it is for |
//! |---|---|
//! | `staged` | the manifest by one request; shards as local files, checked as they come |
//! | `ranges` | some rows, found and read by ranges; nothing is staged |
//! | `stream` | rows of shards that are still on their way |
//! | `out` | a writer's working folder, and what it uploads |
//! | `lease` | who writes for a rank |
//! | `clean` | leftovers of jobs that ended in another way |

pub(crate) mod clean;
mod lease;
pub(crate) mod out;
pub(crate) mod ranges;
pub(crate) mod staged;
pub(crate) mod stream;
