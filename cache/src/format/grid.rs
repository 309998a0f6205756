//! The shape of a token grid.

use crate::error::CacheError;
use crate::format::pack::{TOKEN_BITS_MAX, packed_bytes};
use std::fmt;

/// The largest grid, in tokens (1024 x 1024): a bound on every size that is computed from a file.
pub const GRID_TOKENS_MAX: usize = 1 << 20;

/// The shape of every grid of a cache: height and width in tokens, and the width of a token in bits.
///
/// `bits` is 1 ..= [`TOKEN_BITS_MAX`]; `height * width` is 1 ..= [`GRID_TOKENS_MAX`]. `Display` gives `16x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GridSpec {
    /// Rows of the grid, in tokens.
    pub height: u32,
    /// Columns of the grid, in tokens.
    pub width: u32,
    /// Width of a token, in bits (18 for a codebook of 2^18 entries).
    pub bits: u32,
}

impl GridSpec {
    /// Tokens in a grid: `height * width`.
    pub fn num_tokens(&self) -> usize {
        self.height as usize * self.width as usize
    }

    /// Bytes of a packed grid: `ceil(height * width * bits / 8)`; 576 for 16 x 16 x 18.
    pub fn row_bytes(&self) -> usize {
        packed_bytes(self.num_tokens(), self.bits)
    }

    /// Checks the bounds that every other computation relies on.
    ///
    /// # Errors
    /// [`CacheError::InvalidGrid`] when a side is zero, the grid too large, or the token width out of range.
    pub fn validate(&self) -> Result<(), CacheError> {
        let tokens = u64::from(self.height) * u64::from(self.width);
        let fits = (1..=GRID_TOKENS_MAX as u64).contains(&tokens) && (1..=TOKEN_BITS_MAX).contains(&self.bits);
        if fits { Ok(()) } else { Err(CacheError::InvalidGrid { grid: self.to_string(), bits: self.bits }) }
    }

    /// Reads `"16x16"` (height x width) together with a token width.
    ///
    /// # Errors
    /// [`CacheError::InvalidGrid`] when the text is not two positive numbers or a bound does not hold.
    pub fn parse(text: &str, bits: u32) -> Result<GridSpec, CacheError> {
        let invalid = || CacheError::InvalidGrid { grid: text.to_owned(), bits };
        let (height, width) = text.split_once('x').ok_or_else(invalid)?;
        let number = |side: &str| {
            let digits = !side.is_empty() && side.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| side.parse::<u32>().ok()).flatten().ok_or_else(invalid)
        };
        let grid = GridSpec { height: number(height)?, width: number(width)?, bits };
        grid.validate()?;
        Ok(grid)
    }
}

impl fmt::Display for GridSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_grid() {
        let grid = GridSpec::parse("16x16", 18).unwrap();
        assert_eq!((grid.num_tokens(), grid.row_bytes(), grid.to_string().as_str()), (256, 576, "16x16"));
    }

    #[test]
    fn height_comes_first() {
        let grid = GridSpec::parse("8x16", 3).unwrap();
        assert_eq!((grid.height, grid.width, grid.row_bytes()), (8, 16, 48));
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, bits) in [
            ("16", 18),
            ("0x16", 18),
            ("16x0", 18),
            ("16x16", 0),
            ("16x16", 25),
            ("-1x16", 18),
            ("+1x16", 18),
            ("x", 18),
            ("", 18),
            ("16x16x16", 18),
            ("4294967295x4294967295", 18),
            ("99999999999x1", 18),
            ("2048x1024", 18),
        ] {
            assert!(GridSpec::parse(text, bits).is_err(), "{text} at {bits} bits");
        }
    }
}
