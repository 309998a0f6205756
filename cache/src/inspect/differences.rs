//! What a comparison of two caches finds.

use serde::Serialize;
use serde_json::Value;

/// How two caches differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CacheDiff {
    /// Whether they hold the same rows: key, view, label, crop and tokens.
    pub same: bool,
    /// What the manifests say differently: field, first cache, second cache.
    pub manifests: Vec<(&'static str, Value, Value)>,
    /// Rows of the first cache, and of the second.
    pub rows: [usize; 2],
    /// Rows that both have, by key and view.
    pub common_rows: usize,
    /// Rows that only the first has, and only the second.
    pub only_in: [usize; 2],
    /// Keys of the first images that only one of them has.
    pub only_keys: [Vec<String>; 2],
    /// Common rows with different labels.
    pub labels_differ: usize,
    /// Common rows with different crops or mirroring.
    pub crops_differ: usize,
    /// Common rows with different tokens; 0 where grid or bits differ, so that tokens cannot be compared.
    pub tokens_differ: usize,
    /// Tokens that were compared.
    pub tokens: u64,
    /// Tokens that are equal.
    pub equal_tokens: u64,
    /// Bits that were compared.
    pub bits: u64,
    /// Bits that are equal.
    pub equal_bits: u64,
    /// For every bit of a token, from the least significant one: in how many tokens it differs.
    pub unequal_by_bit: Vec<u64>,
    /// The first rows that differ.
    pub listed: Vec<RowDiff>,
}

/// A row that two caches have differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RowDiff {
    /// Key of the image.
    pub key: String,
    /// View, as rows number it.
    pub view: u32,
    /// The row in each cache.
    pub rows: [usize; 2],
    /// Labels, where they differ.
    pub labels: Option<[i32; 2]>,
    /// Left edge, top edge and mirroring of the crops, where they differ.
    pub crops: Option<[(i32, i32, bool); 2]>,
    /// Tokens that differ.
    pub unequal_tokens: usize,
    /// Bits that differ.
    pub unequal_bits: usize,
}
