//! A small model to sample from, and the files of a run.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::{sorted, text};
use std::path::{Path, PathBuf};
use tch::{Device, Kind};
use tokengrid_model::ar::{ArWeights, ModelConfig};
use tokengrid_test_support::formula;
use tokengrid_train::run::save_safetensors;

pub(crate) const SIDE: usize = 4;

/// A model that fits the tiny tokenizer: 4 x 4 tokens, three classes, random weights (heads included) that depend only
/// on their names.
pub(crate) fn model(folder: &Path) -> PathBuf {
    model_of(folder, [6, 12])
}

pub(crate) fn model_of(folder: &Path, factorized_bits: [u32; 2]) -> PathBuf {
    let config = ModelConfig {
        factorized_bits,
        dim: 64,
        n_head: 4,
        spatial_n_layer: 2,
        factorized_n_layer: 1,
        block_size: (SIDE * SIDE) as i64,
        class_num: 3,
        ..ModelConfig::default()
    };
    let params = config.tensors().into_iter().map(|(name, shape)| {
        let values = formula("sampling:", &name, &shape, 3.0);
        (name, tch::Tensor::from_slice(&values).view(shape.as_slice()).to_kind(Kind::Float).to_device(Device::Cpu))
    });
    let weights = ArWeights {
        params: params.collect(),
        path: PathBuf::new(),
        tokenizer: None,
        classes: vec![],
        config: config.clone(),
    };
    let path = folder.join("model.safetensors");
    let tensors = weights.params.iter();
    save_safetensors(&path, tensors, weights.metadata()).unwrap();
    path
}

/// The command without its outputs.
pub(crate) fn sample<'a>(model: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let fixed =
        ["sample", "--checkpoint", text(model), "--tokenizer", "tiny", "--threads", "1", "--cfg-scale", "1.5,2"];
    [&fixed[..], more].concat()
}

/// Every picture and every token file below the folder, by name.
pub(crate) fn images(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let classes = ["images", "tokens"].into_iter().flat_map(|kind| sorted(&out.join(kind)));
    let files = classes.flat_map(|class| sorted(&class));
    files.map(|file| (file.strip_prefix(out).unwrap().to_path_buf(), std::fs::read(&file).unwrap())).collect()
}

pub(crate) fn array_len(path: &Path) -> usize {
    tokengrid_sample::arrays::Npz::open(path).unwrap().array("arr_0").unwrap().shape[0]
}
