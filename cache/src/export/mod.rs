//! To other programs: arrays of `numpy`, and Parquet with lists of integers.

pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod list_writer;
pub(crate) mod npz;
pub(crate) mod one_x;
pub(crate) mod rows;
mod segments;
mod tar_writer;
pub(crate) mod webdataset;
