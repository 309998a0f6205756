//! What the tokens of a cache are like: use of the codebook, balance of the bits, classes, duplicates.

use crate::inspect::conflicts::LabelConflicts;
use crate::inspect::near::NearDuplicates;
use serde::{Deserialize, Serialize};

/// Statistics over all rows of a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// Rows.
    pub rows: usize,
    /// Images.
    pub images: usize,
    /// Views of every image.
    pub views: usize,
    /// Tokens in all rows.
    pub tokens: u64,
    /// Codes that there are: 2^bits.
    pub codebook_size: usize,
    /// Codes that occur.
    pub distinct_codes: usize,
    /// `distinct_codes / codebook_size`.
    pub codebook_utilization: f64,
    /// Entropy of the codes, in bits per token; at most the number of bits.
    pub code_entropy_bits: f64,
    /// For n = 0, 1, ...: codes that occur 0 times, once, and from 2^(n-1) to 2^n - 1 times.
    pub code_histogram: Vec<u64>,
    /// For every bit of a token, from the least significant one: the fraction of tokens in which it is 1.
    pub bit_balance: Vec<f64>,
    /// Bits that have the same value in every token.
    pub dead_bits: Vec<u32>,
    /// Pearson's correlation of every two bits over all tokens, -1 to 1; `None` where one of them is dead.
    pub bit_correlation: Vec<Vec<Option<f64>>>,
    /// Rows of each class, by class index.
    pub classes: Vec<ClassRows>,
    /// Rows without a class (label -1).
    pub unlabelled_rows: u64,
    /// Classes of the list that no row has.
    pub empty_classes: usize,
    /// Grids that are exactly those of an earlier row.
    pub duplicates: Duplicates,
    /// First views that are nearly those of another image.
    pub near_duplicates: NearDuplicates,
    /// Images whose folder is called like another class than their label's.
    pub label_conflicts: LabelConflicts,
}

/// Rows of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassRows {
    /// Class index.
    pub label: usize,
    /// Its name, where the cache has one.
    pub name: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Codes that occur in them.
    pub distinct_codes: u64,
    /// Entropy of the codes in these rows, in bits per token: of the distribution as counted, so at most the logarithm of the
    /// number of tokens. The estimate is biased low for small classes.
    pub code_entropy_bits: f64,
}

/// Grids that occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Duplicates {
    /// Rows whose grid is that of an earlier row of another image.
    pub rows: u64,
    /// Rows whose grid is that of an earlier view of the same image (a recipe of small crops has some).
    pub rows_within_image: u64,
    /// The first pairs of (earlier row, row) of different images.
    pub first: Vec<(usize, usize)>,
}
