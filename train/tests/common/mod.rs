//! Shared by the tests of the autoregressive model.

use tch::Tensor;
use tokengrid_model::Params;
use tokengrid_model::ar::ModelConfig;
use tokengrid_test_support::formula;

/// Weights by formula for a whole model.
pub(crate) fn formula_params(config: &ModelConfig, salt: &str) -> Params {
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let tensor = Tensor::from_slice(&formula(salt, &name, &shape, 3.0)).view(shape.as_slice());
        (name, tensor)
    };
    config.tensors().into_iter().map(tensor).collect()
}
