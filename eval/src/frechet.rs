//! The Frechet distance of two Gaussians (Dowson and Landau 1982), as FID uses it (Heusel et al., arXiv 1706.08500).
//!
//! `|m1 - m2|^2 + tr C1 + tr C2 - 2 tr sqrt(C1 C2)`, where the last trace is the sum of the roots of the eigenvalues of
//! `C1^1/2 C2 C1^1/2`: symmetric, so that no complex number and no diagonal offset is needed, also where fewer vectors than
//! dimensions leave the covariances singular. Rounding may leave eigenvalues a little below 0; those count as 0.

use crate::EvalError;
use crate::Gaussian;
use tch::{Kind, Tensor};
use tokengrid_model::ModelError;

/// The squared Frechet distance: FID, where the Gaussians are of pool3 features. Not below 0.
///
/// # Errors
/// The vectors have different lengths, or the eigenvalue routine fails.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64, EvalError> {
    if a.dims() != b.dims() {
        return Err(EvalError::Dims { a: a.dims(), b: b.dims() });
    }
    let _no_grad = tch::no_grad_guard();
    let root = root_of(&a.covariance)?;
    let product = root.mm(&b.covariance).mm(&root);
    // Rounding breaks the symmetry in the last digits.
    let product = (&product + product.tr()) / 2.0;
    let roots = product.f_linalg_eigvalsh("L").map_err(failed)?.clamp_min(0.0).sqrt();
    let means = (&a.mean - &b.mean).square();
    let sum = |values: &Tensor| values.sum(Kind::Double).double_value(&[]);
    let trace = |matrix: &Tensor| matrix.trace().double_value(&[]);
    Ok((sum(&means) + trace(&a.covariance) + trace(&b.covariance) - 2.0 * sum(&roots)).max(0.0))
}

/// The symmetric square root.
fn root_of(covariance: &Tensor) -> Result<Tensor, EvalError> {
    let (values, vectors) = covariance.f_linalg_eigh("L").map_err(failed)?;
    Ok((&vectors * values.clamp_min(0.0).sqrt()).mm(&vectors.tr()))
}

fn failed(source: tch::TchError) -> EvalError {
    ModelError::torch("finding the eigenvalues of a covariance")(source).into()
}
