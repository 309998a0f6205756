//! Networks of an evaluation with weights by the formula, in the published names.
#![allow(clippy::unwrap_used, dead_code)] // in a test, a panic is the report

use std::path::{Path, PathBuf};
use tch::Tensor;
use tokengrid_model::perceptual::Backbone;
use tokengrid_test_support::{formula, golden_json, shapes};
use tokengrid_train::run::save_safetensors;

/// Inception weights by the formula, in the published names.
pub(crate) fn inception(folder: &Path) -> PathBuf {
    let json = golden_json("inception.json");
    let (salt, gain) = (json["salt"].as_str().unwrap(), json["gain"].as_f64().unwrap());
    let tensors = shapes(&json["tensors"]).into_iter().map(|(name, shape)| {
        let values = Tensor::from_slice(&formula(salt, &name, &shape, gain)).view(shape.as_slice());
        (name, values)
    });
    save(folder.join("inception.safetensors"), tensors.collect())
}

/// An LPIPS net by the formula.
pub(crate) fn lpips(folder: &Path, backbone: Backbone, salt: &str) -> PathBuf {
    let tensors = backbone.tensors().into_iter().map(|(name, shape)| {
        let values = Tensor::from_slice(&formula(salt, &name, &shape, 6.0)).view(shape.as_slice());
        // Weights of taps are positive.
        let values = if name.starts_with("lin") { values.abs() } else { values };
        (name, values)
    });
    save(folder.join(format!("{}.safetensors", backbone.name())), tensors.collect())
}

fn save(path: PathBuf, tensors: Vec<(String, Tensor)>) -> PathBuf {
    save_safetensors(&path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Default::default()).unwrap();
    path
}
