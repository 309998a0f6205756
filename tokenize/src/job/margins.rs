//! Histograms of |h|, in the bins that caches record: how far bits are from flipping.

use tch::{Kind, Tensor};
use tokengrid_cache::{MARGIN_EDGES, Margins};

/// For each view how many values of `h [B, z, H, W]` have an |h| of at most each of [`MARGIN_EDGES`]: int64 `[B, edges]`.
pub(super) fn below_edges(h_bzhw: &Tensor) -> Tensor {
    let h = h_bzhw.abs().flatten(1, -1);
    let below = |edge: &f32| h.le(f64::from(*edge)).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
    Tensor::stack(&MARGIN_EDGES.iter().map(below).collect::<Vec<_>>(), 1)
}

/// The histogram of a view: from its row of [`below_edges`], and how many values it has.
pub(super) fn margins_of(below_edges: &[i64], values: u64) -> Margins {
    let mut margins = Margins::default();
    let mut last = 0;
    for (count, below) in margins.counts.iter_mut().zip(below_edges.iter().map(|n| *n as u64).chain([values])) {
        *count = below - last;
        last = below;
    }
    margins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_view_has_the_histogram_of_its_own_values() {
        let values = [0.0f32, -5e-7, 1e-6, 2e-4, 1e-3, -0.5, 1.0, 3.0, -7.0, 8.0, 0.05, 9.0];
        let below = below_edges(&Tensor::from_slice(&values).view([2, 3, 2, 1]));
        assert_eq!(below.size(), [2, MARGIN_EDGES.len() as i64]);
        let below = Vec::<i64>::try_from(&below.view([-1])).unwrap();
        for (row, values) in below.chunks_exact(MARGIN_EDGES.len()).zip(values.chunks_exact(6)) {
            let mut margins = Margins::default();
            values.iter().for_each(|h| margins.counts[Margins::bin(*h)] += 1);
            assert_eq!(margins_of(row, 6), margins);
        }
    }
}
