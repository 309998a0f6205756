//! One shard file: what its footer says, where everything lies in it, and everything that is read from it.

pub(crate) mod access;
pub(crate) mod belongs;
pub(crate) mod check_once;
pub(crate) mod columns;
pub(crate) mod footer;
pub(crate) mod group;
pub(crate) mod handle;
pub(crate) mod layout;
pub(crate) mod map;
pub(crate) mod open;
pub(crate) mod page_header;
pub(crate) mod rows;
pub(crate) mod tail;
