//! From other programs: arrays of `numpy`, and Parquet with lists of integers.

pub(crate) mod arrays;
pub(crate) mod arrow;
pub(crate) mod bit_profile;
pub(crate) mod error;
mod exported_shards;
pub(crate) mod frame_metadata;
pub(crate) mod frame_set;
pub(crate) mod importer;
pub(crate) mod jsonl;
pub(crate) mod keys;
mod lines;
pub(crate) mod list_reader;
pub(crate) mod llamagen;
pub(crate) mod memmap;
pub(crate) mod npz;
pub(crate) mod one_x;
pub(crate) mod parquet;
mod sample_layout;
mod seen_keys;
mod tar_members;
mod unpacked;
pub(crate) mod waiting_rows;
pub(crate) mod webdataset;
