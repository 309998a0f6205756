//! What is compared in a check, and what it finds.

use serde::Serialize;

/// A view of an image as it was encoded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedView {
    /// The grid, raster order.
    pub tokens: Vec<u32>,
    /// For every token a mask of the bits that may differ: those whose value lay within the stated margin of 0 before its sign
    /// was taken. Empty when none may.
    pub uncertain: Vec<u32>,
    /// Left edge of the crop in the resized image, in pixels.
    pub crop_x: i32,
    /// Top edge of the crop in the resized image, in pixels.
    pub crop_y: i32,
    /// Whether the crop was mirrored.
    pub flip: bool,
}

/// An image as the source has it and the tokenizer sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedImage {
    /// Its key in the source.
    pub key: String,
    /// Its label in the source.
    pub label: i32,
    /// All views, in order.
    pub views: Vec<CheckedView>,
}

/// A way in which a cache can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Disagreement {
    /// Another key: the source lists its images in another order, or is another one.
    Key,
    /// Another label.
    Label,
    /// The labels are those of the source plus or minus one number.
    LabelShift,
    /// The crop is recorded at another place.
    Crop,
    /// The mirroring is recorded otherwise.
    Flip,
    /// More bits are equal after their order in a token is reversed.
    BitReversed,
    /// More bits are equal after the grids are mirrored left to right.
    Mirrored,
    /// More bits are equal after the grids are moved by whole tokens: the crops were taken at another place.
    Shifted,
    /// Tokens differ in no recognisable way: other weights, another resize, another precision.
    Tokens,
}

/// One image that disagrees.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Mismatch {
    /// Row of the cache.
    pub row: usize,
    /// Key of the row in the cache.
    pub key: String,
    /// In which way.
    pub kind: Disagreement,
    /// What the cache has, and what was found.
    pub what: String,
}

/// What [`crate::check()`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Images that were compared.
    pub images: usize,
    /// Rows that were compared.
    pub rows: usize,
    /// Tokens that were compared.
    pub tokens: u64,
    /// Bits that were compared.
    pub bits: u64,
    /// Bits that differ but may, by the margin.
    pub bits_within_margin: u64,
    /// Bits that differ and may not.
    pub bits_wrong: u64,
    /// `bits_wrong / bits`.
    pub share_of_bits_wrong: f64,
    /// Tokens with at least one such bit.
    pub tokens_wrong: u64,
    /// The kinds of disagreement, each once.
    pub kinds: Vec<Disagreement>,
    /// The first rows that disagree.
    pub mismatches: Vec<Mismatch>,
    /// Rows that disagree.
    pub rows_wrong: usize,
    /// What makes the tokens of these rows agree, if something does.
    pub explanation: Option<String>,
}

impl CheckReport {
    /// Whether everything agrees.
    pub fn is_ok(&self) -> bool {
        self.rows_wrong == 0
    }
}
