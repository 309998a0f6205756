//! Rows that are near each other by the number of bits in which their grids differ.

mod blocks;
pub(crate) mod hamming;
pub(crate) mod leak;
pub(crate) mod near_rows;
pub(crate) mod nearest;
