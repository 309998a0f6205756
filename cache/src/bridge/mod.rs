//! To and from other programs: arrays of `numpy`, and Parquet with lists of integers.

mod export;
mod export_folder;
mod import;
mod keys;
mod list_parquet;
mod npy;

pub use export::{export_npy, export_parquet};
pub use import::{ImportOptions, import_npy, import_npy_pairs, import_parquet};
