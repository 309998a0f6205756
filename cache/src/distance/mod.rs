//! Rows that are near each other by the number of bits in which their grids differ.

pub(crate) mod hamming;
pub(crate) mod near_rows;
mod nearest;
