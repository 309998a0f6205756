//! Reading a finished cache: validated as a whole, then rows straight from the map.

pub(crate) mod cache;
pub(crate) mod columns;
pub(crate) mod grids;
mod labels;
pub(crate) mod loader;
pub(crate) mod order;
pub(crate) mod require;
pub(crate) mod row_index;
