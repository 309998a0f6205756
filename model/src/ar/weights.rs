//! The model's tensors: names, initial values, and where a checkpoint keeps them.

use super::config::ModelConfig;
use super::description::{Description, Known};
use super::metadata;
use crate::checkpoints::{EMA, MODEL, newest_checkpoint};
use crate::weights::{AR_PREFIX, Part};
use crate::{ModelError, Params, Variant, Weights, tiny};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A part of the parameter names.
pub(super) struct Scope<'a> {
    params: &'a Params,
    prefix: String,
}

impl<'a> Scope<'a> {
    pub(super) fn new(params: &'a Params) -> Scope<'a> {
        Scope { params, prefix: String::new() }
    }

    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.params.get(&format!("{}{name}", self.prefix)).shallow_clone()
    }

    /// `build` for each of `<name>.0 .. <name>.count`.
    pub(super) fn each<T>(&self, name: &str, count: i64, build: impl Fn(&Scope) -> T) -> Vec<T> {
        let sub = |i| Scope { params: self.params, prefix: format!("{}{name}.{i}.", self.prefix) };
        (0..count).map(|i| build(&sub(i))).collect()
    }
}

impl ModelConfig {
    /// Name and shape of every parameter, under the reference's names.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let (d, f) = (self.dim, self.ffn_dim());
        let [pre, post] = self.vocab();
        let mut list = vec![
            ("pre_emb.weight".to_string(), vec![pre, d]),
            ("post_emb.weight".to_string(), vec![post, d]),
            ("class_emb.embedding_table.weight".to_string(), vec![self.class_num + 1, d]),
        ];
        for (stack, count) in [("spatial_blocks", self.spatial_n_layer), ("factorized_blocks", self.factorized_n_layer)]
        {
            for i in 0..count {
                let block: [(&str, Vec<i64>); 7] = [
                    ("attention_norm.weight", vec![d]),
                    ("attention.wqkv.weight", vec![3 * d, d]),
                    ("attention.wo.weight", vec![d, d]),
                    ("ffn_norm.weight", vec![d]),
                    ("feed_forward.w1.weight", vec![f, d]),
                    ("feed_forward.w3.weight", vec![f, d]),
                    ("feed_forward.w2.weight", vec![d, f]),
                ];
                list.extend(block.map(|(name, shape)| (format!("{stack}.{i}.{name}"), shape)));
            }
        }
        list.push(("norm.weight".into(), vec![d]));
        list.push(("head.0.weight".into(), vec![pre, d]));
        list.push(("head.1.weight".into(), vec![post, d]));
        list
    }

    /// Number of parameters.
    pub fn num_params(&self) -> i64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }

    /// Reads the hyper-parameters off names and shapes. The number of heads and the grid are not in them, nor are the rates:
    /// these are the defaults.
    pub(super) fn infer(shape: impl Fn(&str) -> Option<Vec<i64>>, path: &Path) -> Result<ModelConfig, ModelError> {
        let missing = |name: &str| ModelError::MissingTensor {
            path: path.into(),
            name: name.into(),
            others: 0,
            wanted: "an autoregressive model",
        };
        let first_axis = |name: &str| shape(name)?.first().copied();
        let rows = |name: &str| first_axis(name).ok_or_else(|| missing(name));
        let bits = |rows: i64| (rows.max(1) as u64).ilog2();
        let layers = |stack: &str| {
            let norm = |i: &i64| shape(&format!("{stack}.{i}.attention_norm.weight")).is_some();
            (0..1024).take_while(norm).count() as i64
        };
        let dim = rows("norm.weight")?;
        Ok(ModelConfig {
            dim,
            spatial_n_layer: layers("spatial_blocks"),
            factorized_n_layer: layers("factorized_blocks"),
            factorized_bits: [bits(rows("pre_emb.weight")?), bits(rows("post_emb.weight")?)],
            class_num: rows("class_emb.embedding_table.weight")? - 1,
            ..ModelConfig::default()
        })
    }
}

/// Fresh weights: N(0, 0.02), heads zero, norms one. They depend on the seed alone.
pub fn initial_params(config: &ModelConfig, seed: i64) -> Params {
    tch::manual_seed(seed);
    let init = |(name, shape): (String, Vec<i64>)| {
        let options = (Kind::Float, Device::Cpu);
        let tensor = if name.starts_with("head.") {
            Tensor::zeros(shape.as_slice(), options)
        } else if shape.len() == 1 {
            Tensor::ones(shape.as_slice(), options)
        } else {
            Tensor::randn(shape.as_slice(), options) * 0.02
        };
        (name, tensor)
    };
    config.tensors().into_iter().map(init).collect()
}

/// A trained model read from disk.
#[derive(Debug)]
pub struct ArWeights {
    /// Hyper-parameters, from the run's config beside the checkpoint or inferred.
    pub config: ModelConfig,
    /// Tensors as stored, on the CPU.
    pub params: Params,
    /// The file they came from.
    pub path: PathBuf,
    /// Fingerprint of the tokenizer whose cache the model was trained on, where the run recorded it.
    pub tokenizer: Option<String>,
    /// Names of the classes by index, where the file has them.
    pub classes: Vec<String>,
}

impl ArWeights {
    /// Opens a run's folder, one of its checkpoints, or a file: `.safetensors`, or the reference's `.ckpt`
    /// (`transformer.*`). `known` completes what the file does not record, see [`Description`].
    ///
    /// # Errors
    /// The file is missing, damaged or not a model's; weights are not finite; heads or grid are not known.
    pub fn open(path: &Path, known: impl Into<Known>) -> Result<ArWeights, ModelError> {
        let weights = ArWeights::file(path)?;
        let description = Description::of(&weights)?.with(known.into())?;
        ArWeights::read(&weights, &description)
    }

    /// The opened file that `path` stands for, which may be a run's folder, or `tiny`.
    ///
    /// # Errors
    /// Missing or broken files.
    pub fn file(path: &Path) -> Result<Weights, ModelError> {
        ArWeights::file_of(path, Some(Variant::Raw))
    }

    /// As [`ArWeights::file`], with a choice between the weights and their averages, for a run or checkpoint; without a
    /// `variant`, the averages where the checkpoint has them. A single file is opened as it is.
    ///
    /// # Errors
    /// Missing or broken files; averages that are not there.
    pub fn file_of(path: &Path, variant: Option<Variant>) -> Result<Weights, ModelError> {
        let is_averages = path.file_name().is_some_and(|name| name == EMA);
        if !path.is_dir() && (is_averages || variant != Some(Variant::Ema)) {
            return tiny::open_ar(path);
        }
        let checkpoint = if path.is_dir() { checkpoint_in(path)? } else { path.with_file_name("") };
        let averages = checkpoint.join(EMA);
        match variant {
            Some(Variant::Raw) => Weights::open(&checkpoint.join(MODEL)),
            Some(Variant::Ema) if !averages.is_file() => {
                let what =
                    format!("no averaged weights, {EMA}, beside the others: `train.ema_decay` keeps them in a run");
                Err(ModelError::Checkpoint { path: path.into(), what })
            }
            None if !averages.is_file() => Weights::open(&checkpoint.join(MODEL)),
            Some(Variant::Ema) | None => Weights::open(&averages),
        }
    }

    /// The model of an opened file.
    ///
    /// # Errors
    /// As [`ArWeights::open`].
    pub fn read(weights: &Weights, description: &Description) -> Result<ArWeights, ModelError> {
        let config = description.config()?;
        let (path, tokenizer) = (weights.path().to_path_buf(), description.tokenizer.clone());
        let (params, classes) = (ArWeights::params_of(weights, description)?, description.classes.clone());
        Ok(ArWeights { config, params, path, tokenizer, classes })
    }

    /// The model's tensors under this program's names, whether or not all of the model is known.
    ///
    /// # Errors
    /// Missing, misshapen or unexplained tensors, weights that are not finite.
    pub fn params_of(weights: &Weights, description: &Description) -> Result<Params, ModelError> {
        let prefix = prefix_of(weights);
        let own = weights.names().filter(|name| Part::of(name) == Part::Autoregressive);
        let own = own.filter_map(|stored| Some((stored, stored.strip_prefix(prefix)?.to_string())));
        let params: Params =
            own.map(|(stored, name)| Ok((name, weights.parameter(stored)?))).collect::<Result<_, ModelError>>()?;
        params.check(&description.tensors(), weights.path(), "an autoregressive model")?;
        Ok(params)
    }

    /// Metadata for a safetensors file of this model, see [`Description::metadata`].
    pub fn metadata(&self) -> HashMap<String, String> {
        metadata::of(&self.config, self.tokenizer.as_deref())
    }
}

/// What the model's names begin with in this file.
pub(super) fn prefix_of(weights: &Weights) -> &'static str {
    if weights.names().any(|name| name.starts_with(AR_PREFIX)) { AR_PREFIX } else { "" }
}

/// The checkpoint folder meant by `path`: itself, or the newest valid one of a run. A link `latest` stands for the newest, too:
/// where it points to is older after a kill at the wrong moment.
fn checkpoint_in(path: &Path) -> Result<PathBuf, ModelError> {
    let is_latest = path.file_name().is_some_and(|name| name == "latest");
    let run = if is_latest && path.is_symlink() { path.parent().unwrap_or(path) } else { path };
    let is_checkpoint = |folder: &PathBuf| folder.join(MODEL).is_file();
    let itself = Some(run.to_path_buf()).filter(is_checkpoint);
    itself.or_else(|| newest_checkpoint(run)).or_else(|| Some(path.to_path_buf()).filter(is_checkpoint)).ok_or_else(
        || {
            let what =
                "expected model.safetensors in it, or in a checkpoint below its folder `checkpoints`".to_string();
            ModelError::Checkpoint { path: path.into(), what }
        },
    )
}
