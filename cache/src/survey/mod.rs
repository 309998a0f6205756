//! A survey: every row's place on a map of the cache, the entropy of its codes, and its distance from the mean of its class.
//!
//! The map shows the bits of the grids, taken as vectors of zeros and ones, in the two directions in which a sample of them is
//! spread most (principal components). Similar grids lie near each other.
//!
//! | module | what it is for |
//! |---|---|
//! | `byte_sums` | sums over the bits of a packed grid that are set, a byte at a time |
//! | `axes` | the two directions, from a sample of the rows |
//! | `means` | how often each bit is set in the rows of a class |
//! | `pass` | the pass over all rows |
//! | `store` | the file that keeps the result |

mod axes;
mod byte_sums;
mod means;
mod pass;
mod store;
#[cfg(test)]
mod tests;

pub use store::SURVEY_FILE;

/// What a survey found: numbers for each row, in row order.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// Checksum of the manifest of the cache that it is of.
    manifest: String,
    /// Along the direction of the largest spread: 0 to 65535, the middle nine tenths of which a sample of the rows fills.
    pub x: Vec<u16>,
    /// Along the next one.
    pub y: Vec<u16>,
    /// See [`Survey::entropy_bits`].
    pub entropy: Vec<u16>,
    /// See [`Survey::class_distance_bits`].
    pub class_distance: Vec<u16>,
    /// Entropy, and distance, that 65535 stands for.
    scales: [f32; 2],
}

impl Survey {
    /// Entropy of the codes in a row's own grid, in bits per token: 0 where all tokens are equal, the logarithm of their number
    /// where all differ.
    pub fn entropy_bits(&self, row: usize) -> f32 {
        f32::from(self.entropy[row]) / f32::from(u16::MAX) * self.scales[0]
    }

    /// In how many bits a row differs from another row of its class, on average: from each bit's mean over the class.
    pub fn class_distance_bits(&self, row: usize) -> f32 {
        f32::from(self.class_distance[row]) / f32::from(u16::MAX) * self.scales[1]
    }
}

/// A number in `0..=scale` as one of 65536 steps.
fn quantized(value: f32, scale: f32) -> u16 {
    // A number that is not finite becomes 0, one outside the nearest step.
    (value / scale.max(f32::MIN_POSITIVE) * f32::from(u16::MAX)).round() as u16
}
