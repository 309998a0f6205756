//! How near to 0 the values were whose signs are a cache's bits: what another device's rounding could have changed.

use serde::{Deserialize, Serialize};

/// Upper edges of all bins but the last, each part of the bin below it.
pub const MARGIN_EDGES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];

/// Counts of |h| over all bits of some tokens. Bin 0 is |h| <= 1e-6, bin i `MARGIN_EDGES[i - 1] < |h| <= MARGIN_EDGES[i]`,
/// the last one |h| > 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Margins {
    /// Bits in each bin.
    pub counts: [u64; MARGIN_EDGES.len() + 1],
}

impl Margins {
    /// The bin of a value. What is not a number at all is in the last one.
    pub fn bin(h: f32) -> usize {
        MARGIN_EDGES.iter().position(|edge| h.abs() <= *edge).unwrap_or(MARGIN_EDGES.len())
    }

    /// Bits in all.
    pub fn bits(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Bits with |h| of at most `edge`, one of [`MARGIN_EDGES`].
    pub fn within(&self, edge: f32) -> u64 {
        let bins = MARGIN_EDGES.iter().take_while(|e| **e <= edge).count();
        self.counts[..bins].iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Margins) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.bits() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bin_below_it() {
        let bins = [0.0, 1e-6, -1e-6, 2e-6, 1e-3, -0.0011, 1.0, -1.5, f32::NAN].map(Margins::bin);
        assert_eq!(bins, [0, 0, 0, 1, 3, 4, 6, 7, 7]);
    }

    #[test]
    fn counts_add_up() {
        let mut margins = Margins { counts: [1, 2, 3, 4, 5, 6, 7, 8] };
        assert_eq!((margins.bits(), margins.within(1e-3), margins.within(1e-6)), (36, 10, 1));
        margins.add(&margins.clone());
        assert_eq!(margins.bits(), 72);
        assert_eq!(serde_json::to_string(&margins).unwrap(), "[2,4,6,8,10,12,14,16]");
    }
}
