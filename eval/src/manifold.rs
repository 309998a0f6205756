//! Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991), as the ADM suite computes them.
//!
//! Around every feature vector of a set lies a ball that reaches to its third nearest neighbour in the set. Precision is the
//! share of generated pictures that lie in a ball of the reference; recall is the share of the reference that lies in a
//! ball of the generated ones. Distances are computed in f64, block by block.

use crate::EvalError;
use tch::{Kind, Tensor};

/// A ball reaches to the neighbour of this rank.
pub(crate) const NEIGHBOURS: usize = 3;

/// Rows whose distances to all others are held at a time.
const BLOCK_ROWS: i64 = 1024;

/// Precision and recall, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of generated pictures within the reference's manifold.
    pub precision: f64,
    /// Share of reference pictures within the generated manifold.
    pub recall: f64,
}

/// Precision and recall of `generated` f32 `[N, D]` against `reference` f32 `[M, D]`.
///
/// # Errors
/// A set has fewer than four pictures, or the vectors have different lengths.
pub(crate) fn precision_recall(generated: &Tensor, reference: &Tensor) -> Result<PrecisionRecall, EvalError> {
    let _no_grad = tch::no_grad_guard();
    for set in [generated, reference] {
        let count = set.size()[0] as u64;
        if count <= NEIGHBOURS as u64 {
            let what = "balls that reach to the third neighbour";
            return Err(EvalError::TooFew { count, needed: NEIGHBOURS as u64 + 1, what });
        }
    }
    let (a, b) = (generated.size()[1], reference.size()[1]);
    if a != b {
        return Err(EvalError::Dims { a: a as usize, b: b as usize });
    }
    let precision = share_within(generated, reference, &radii(reference));
    let recall = share_within(reference, generated, &radii(generated));
    Ok(PrecisionRecall { precision, recall })
}

/// Squared distance of every vector to its third nearest neighbour, itself not counted: f64 `[N]`.
fn radii(set: &Tensor) -> Tensor {
    let blocks: Vec<Tensor> = set
        .split(BLOCK_ROWS, 0)
        .iter()
        // The nearest of all is the vector itself.
        .map(|block| squared_distances(block, set).kthvalue(NEIGHBOURS as i64 + 1, 1, false).0)
        .collect();
    Tensor::cat(&blocks, 0)
}

/// Share of `points` that lie in at least one of the balls around `centres`.
fn share_within(points: &Tensor, centres: &Tensor, radii: &Tensor) -> f64 {
    let inside = points.split(BLOCK_ROWS, 0).into_iter().map(|block| {
        let is_inside = squared_distances(&block, centres).le_tensor(radii).any_dim(1, false);
        is_inside.sum(Kind::Int64).int64_value(&[])
    });
    inside.sum::<i64>() as f64 / points.size()[0] as f64
}

/// f64 `[N, M]` of `|x_n - y_m|^2`.
fn squared_distances(x_nd: &Tensor, y_md: &Tensor) -> Tensor {
    let (x_nd, y_md) = (x_nd.to_kind(Kind::Double), y_md.to_kind(Kind::Double));
    let squares = |v: &Tensor| v.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    (squares(&x_nd).unsqueeze(1) + squares(&y_md).unsqueeze(0) - x_nd.mm(&y_md.tr()) * 2.0).clamp_min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line.
    fn points(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    #[test]
    fn balls_extend_to_the_third_neighbour() {
        let reference = points(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        // The balls: 0 reaches 3, 1 and 3 reach 2, 2 reaches 2, 4 reaches 3; together from -3 to 7.
        let generated = points(&[-3.0, 7.0, 7.5, 100.0]);
        let got = precision_recall(&generated, &reference).unwrap();
        // -3 is on the rim; 7.5 and 100 are outside. The balls of the generated points cover all of the reference.
        assert_eq!(got, PrecisionRecall { precision: 0.5, recall: 1.0 });
        let apart = precision_recall(&points(&[900.0, 901.0, 902.0, 903.0]), &reference).unwrap();
        assert_eq!(apart, PrecisionRecall { precision: 0.0, recall: 0.0 });
        assert!(precision_recall(&points(&[1.0, 2.0, 3.0]), &reference).unwrap_err().to_string().contains("4"));
    }
}
