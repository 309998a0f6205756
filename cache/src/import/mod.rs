//! From other programs: arrays of `numpy`, and Parquet with lists of integers.

pub(crate) mod arrays;
pub(crate) mod error;
pub(crate) mod importer;
pub(crate) mod keys;
pub(crate) mod list_reader;
pub(crate) mod parquet;
pub(crate) mod waiting_rows;
