//! What a checkpoint says about its autoregressive model, and what it leaves open.
//!
//! Shapes determine widths, layers, bits and classes. They do not determine the number of heads and the grid, and another
//! number makes another model of the same weights. They come, in this order, from the metadata of the file itself, from the
//! `config.toml` of the run beside it, from the caller ([`Known`]), and from the sizes of the reference's published models. Where
//! none of them has the number, the error asks for it; nothing is guessed.

use super::config::{ModelConfig, preset};
use super::metadata;
use super::weights::prefix_of;
use crate::weights::{AR_PREFIX, Part};
use crate::{ModelError, Weights};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the caller knows about a checkpoint's model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Attention heads.
    pub n_head: Option<i64>,
    /// Height and width of the grid, in tokens.
    pub grid: Option<(u32, u32)>,
}

impl From<Option<i64>> for Known {
    fn from(n_head: Option<i64>) -> Known {
        Known { n_head, grid: None }
    }
}

/// The two numbers that shapes do not determine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Untold {
    pub n_head: Option<i64>,
    /// Tokens per image.
    pub block_size: Option<i64>,
}

impl Untold {
    /// These numbers, completed by those of `other`.
    fn or(self, other: Untold) -> Untold {
        Untold { n_head: self.n_head.or(other.n_head), block_size: self.block_size.or(other.block_size) }
    }
}

/// What is known about the model of a checkpoint.
#[derive(Debug, Clone)]
pub struct Description {
    path: PathBuf,
    /// All hyper-parameters; the values of heads and grid are not valid.
    model: ModelConfig,
    recorded: Untold,
    known: Untold,
    published: Untold,
    /// Fingerprint of the tokenizer whose tokens the model was trained on, where it was recorded.
    pub tokenizer: Option<String>,
    /// Names of the classes by index, where they were recorded.
    pub classes: Vec<String>,
    /// Why the `config.toml` beside the file is not used.
    other_config: Option<String>,
}

impl Description {
    /// What an opened file, or the run that it lies in, says.
    ///
    /// # Errors
    /// Another kind of weights, tensors that nothing accounts for, or metadata that contradict them.
    pub fn of(weights: &Weights) -> Result<Description, ModelError> {
        let path = weights.path();
        weights.check_explained()?;
        if !weights.has(Part::Autoregressive) {
            let (holds, advice) = ("a tokenizer and no autoregressive model", "it is what --tokenizer takes");
            return Err(ModelError::OtherModel { path: path.into(), holds, advice });
        }
        let prefix = prefix_of(weights);
        let shape = |name: &str| Some(weights.entry(&format!("{prefix}{name}"))?.shape.clone());
        let mut description = Description {
            path: path.into(),
            model: ModelConfig::infer(shape, path)?,
            recorded: Untold::default(),
            known: Untold::default(),
            published: Untold::default(),
            tokenizer: weights
                .fact(metadata::TOKENIZER_KEY)
                .map(str::to_string)
                .or_else(|| tokenizer_beside(path))
                .filter(|recorded| is_fingerprint(recorded)),
            // Names are optional: metadata that are no list of names are ignored.
            classes: weights
                .fact(metadata::CLASSES_KEY)
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_default(),
            other_config: None,
        };
        match weights.fact(metadata::MODEL_KEY) {
            Some(json) => description.read_metadata(json)?,
            None => description.read_config_beside(),
        }
        if prefix == AR_PREFIX {
            description.published = published(&description.model);
        }
        Ok(description)
    }

    fn read_metadata(&mut self, json: &str) -> Result<(), ModelError> {
        let path = self.path.clone();
        let key = metadata::MODEL_KEY;
        let wrong = |what: String| ModelError::Checkpoint { path, what: format!("{key} of its metadata: {what}") };
        match metadata::parse(json) {
            Err(error) => Err(wrong(error.to_string())),
            Ok((model, recorded)) => match difference(&model, &self.model) {
                Some(difference) => Err(wrong(difference)),
                None => {
                    (self.model, self.recorded) = (model, recorded);
                    Ok(())
                }
            },
        }
    }

    /// Uses the configuration beside the file, if there is one and it describes this model.
    fn read_config_beside(&mut self) {
        let Some(file) = self.path.parent().map(|parent| parent.join("config.toml")) else { return };
        if !file.is_file() {
            return;
        }
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        let other = |what: String| Some(format!("{}: {what}", file.display()));
        match text.and_then(|text| ModelConfig::of_toml(&text)) {
            Err(what) => self.other_config = other(what),
            Ok(model) => match difference(&model, &self.model) {
                Some(difference) => self.other_config = other(difference),
                None => {
                    self.recorded = Untold { n_head: Some(model.n_head), block_size: Some(model.block_size) };
                    self.model = model;
                }
            },
        }
    }

    /// Adds what the caller knows; recorded values take precedence.
    ///
    /// # Errors
    /// Heads that do not divide the model, a grid that is not square.
    pub fn with(mut self, known: Known) -> Result<Description, ModelError> {
        if let Some((height, width)) = known.grid.filter(|(height, width)| height != width) {
            return Err(self.refused("", format!("a grid of {height}x{width}: the grids of a model are square")));
        }
        let block_size = known.grid.map(|(height, width)| i64::from(height) * i64::from(width));
        self.known = Untold { n_head: known.n_head, block_size }.or(self.known);
        let Untold { n_head, block_size } = self.untold();
        if let Some(n_head) = n_head {
            self.check(n_head, block_size.unwrap_or(1))?;
        }
        Ok(self)
    }

    /// As [`Description::with`], for what was typed, which must not contradict what is recorded.
    ///
    /// # Errors
    /// As [`Description::with`]; or a value contradicts what is recorded.
    pub fn with_typed(self, known: Known) -> Result<Description, ModelError> {
        let recorded = self.recorded;
        let description = self.with(known)?;
        let typed = description.known;
        for (flag, what, typed, recorded) in [
            ("--n-head", "heads", typed.n_head, recorded.n_head),
            ("--grid", "tokens per image", typed.block_size, recorded.block_size),
        ] {
            if let (Some(typed), Some(recorded)) = (typed, recorded)
                && typed != recorded
            {
                return Err(description.refused(flag, format!("{typed} {what}, but the model has {recorded}")));
            }
        }
        Ok(description)
    }

    /// Attention heads, if they are known.
    pub fn n_head(&self) -> Option<i64> {
        self.untold().n_head
    }

    /// Tokens per image, if they are known.
    pub fn block_size(&self) -> Option<i64> {
        self.untold().block_size
    }

    fn untold(&self) -> Untold {
        self.recorded.or(self.known).or(self.published)
    }

    /// The complete model.
    ///
    /// # Errors
    /// Heads or grid are not known (the error asks for them), or what is known makes no model.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        match self.untold() {
            Untold { n_head: Some(n_head), block_size: Some(block_size) } => self.check(n_head, block_size),
            Untold { n_head, block_size } => Err(self.ask(n_head.is_none(), block_size.is_none())),
        }
    }

    /// Checks that the number of heads is known.
    ///
    /// # Errors
    /// It is not; the error asks for it.
    pub fn require_heads(&self) -> Result<(), ModelError> {
        if self.n_head().is_some() { Ok(()) } else { Err(self.ask(true, false)) }
    }

    /// The request for what is not known; `None` where everything is.
    pub fn open_question(&self) -> Option<String> {
        let Untold { n_head, block_size } = self.untold();
        (n_head.is_none() || block_size.is_none()).then(|| self.question(n_head.is_none(), block_size.is_none()))
    }

    fn ask(&self, heads: bool, grid: bool) -> ModelError {
        self.refused("", self.question(heads, grid))
    }

    fn question(&self, heads: bool, grid: bool) -> String {
        let (what, flags) = match (heads, grid) {
            (true, true) => ("the number of attention heads and the grid", "--n-head N and --grid HxW"),
            (true, false) => ("the number of attention heads", "--n-head N"),
            _ => ("the grid", "--grid HxW"),
        };
        let beside =
            self.other_config.as_ref().map(|why| format!(" (the config.toml beside it is of something else: {why})"));
        format!("its tensors do not tell {what}, and nothing else does{}; give {flags}", beside.unwrap_or_default())
    }

    fn refused(&self, flag: &str, what: String) -> ModelError {
        let path = self.path.display();
        ModelError::Config { place: if flag.is_empty() { path.to_string() } else { format!("{path}, {flag}") }, what }
    }

    /// The model with these numbers, if it can be built.
    fn check(&self, n_head: i64, block_size: i64) -> Result<ModelConfig, ModelError> {
        let model = ModelConfig { n_head, block_size, ..self.model.clone() };
        match model.validate() {
            Ok(()) => Ok(model),
            Err((key, what)) => Err(self.refused(&format!("{key} (--n-head, --grid)"), what)),
        }
    }

    /// All hyper-parameters as JSON; heads and grid are null where they are not known.
    pub fn to_json(&self) -> Value {
        let Untold { n_head, block_size } = self.untold();
        metadata::to_json(&self.model, Untold { n_head, block_size })
    }

    /// The hyper-parameters that shapes determine, and the dropout rates; the values of heads and grid are not valid.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// Name and shape of every parameter.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        self.model.tensors()
    }

    /// Metadata for a safetensors file of this model: it records what shapes do not determine, as far as it is known, so that no
    /// `config.toml` is needed beside the file.
    pub fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = metadata::of_json(&self.to_json(), self.tokenizer.as_deref());
        if !self.classes.is_empty() {
            metadata.insert(metadata::CLASSES_KEY.into(), serde_json::json!(self.classes).to_string());
        }
        metadata
    }
}

/// How a model differs from another in what shapes determine.
fn difference(said: &ModelConfig, actual: &ModelConfig) -> Option<String> {
    let of_shapes = |model: &ModelConfig| {
        let [low, high] = model.factorized_bits;
        let layers = [model.spatial_n_layer, model.factorized_n_layer];
        [model.dim, layers[0], layers[1], low.into(), high.into(), model.class_num]
    };
    let names =
        ["dim", "spatial_n_layer", "factorized_n_layer", "factorized_bits[0]", "factorized_bits[1]", "class_num"];
    let values = of_shapes(said).into_iter().zip(of_shapes(actual));
    let (name, (said, actual)) = names.into_iter().zip(values).find(|(_, (said, actual))| said != actual)?;
    Some(format!("it says {name} = {said}, the tensors have {actual}"))
}

/// Heads and grid of the reference's published model of these sizes, if there is one.
fn published(model: &ModelConfig) -> Untold {
    let preset = |name: &str| ModelConfig::of_toml(preset(name)?).ok();
    let known = ["B", "L", "XL"].into_iter().filter_map(preset).find(|known| difference(known, model).is_none());
    known.map(|known| Untold { n_head: Some(known.n_head), block_size: Some(known.block_size) }).unwrap_or_default()
}

/// The tokenizer's fingerprint in the state of the run that a file lies in.
fn tokenizer_beside(file: &Path) -> Option<String> {
    let state = std::fs::read_to_string(file.parent()?.join("state.json")).ok()?;
    let state: Value = serde_json::from_str(&state).ok()?;
    Some(state.get("tokenizer")?.as_str()?.to_string())
}

/// Imported caches have a word instead: their tokenizer is not known.
fn is_fingerprint(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
