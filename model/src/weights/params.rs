//! Named tensors under the model's own names, and how the variants of a checkpoint map to them.

use super::Weights;
use super::layout::{EMA_PREFIX, FROZEN_PREFIX, Part};
use crate::ModelError;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use tch::{Device, Kind, Tensor};

/// Which copy of the tokenizer's weights to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    /// The weights as trained; what the reference's AR stage encodes with.
    #[default]
    Raw,
    /// Their exponential moving average; what the reference's tokenizer evaluation uses.
    Ema,
}

impl Variant {
    /// `raw` or `ema`.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Raw => "raw",
            Variant::Ema => "ema",
        }
    }
}

impl FromStr for Variant {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "raw" => Ok(Variant::Raw),
            "ema" => Ok(Variant::Ema),
            _ => Err(ModelError::Setting { what: "weight variant", value: text.into(), expected: "`raw` or `ema`" }),
        }
    }
}

/// Tensors by name, in name order.
#[derive(Debug, Default)]
pub struct Params(BTreeMap<String, Tensor>);

impl FromIterator<(String, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(items: I) -> Self {
        Params(items.into_iter().collect())
    }
}

impl Params {
    /// The tensor called `name`.
    ///
    /// # Panics
    /// When there is none: call [`Params::check`] first.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("parameter `{name}` was not checked for"))
    }

    /// Shape of `name`, if there is such a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get(name).map(Tensor::size)
    }

    /// All tensors in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies on `device` with `kind`; tensors that have both already are shared.
    pub fn to_kind_and_device(&self, kind: Kind, device: Device) -> Params {
        self.iter().map(|(name, tensor)| (name.to_string(), tensor.to_device(device).to_kind(kind))).collect()
    }

    /// Checks that exactly `expected` is here, with these shapes.
    ///
    /// # Errors
    /// The first missing or misshapen tensor, or the list of unexplained ones. `wanted` says what was looked for.
    pub fn check(&self, expected: &[(String, Vec<i64>)], path: &Path, wanted: &'static str) -> Result<(), ModelError> {
        let missing: Vec<&String> = expected.iter().map(|(n, _)| n).filter(|n| !self.0.contains_key(*n)).collect();
        if let Some(first) = missing.first() {
            let (path, name, others) = (path.into(), first.to_string(), missing.len() - 1);
            return Err(ModelError::MissingTensor { path, name, others, wanted });
        }
        for (name, shape) in expected {
            let actual = self.0[name].size();
            if actual != *shape {
                let (path, name, expected) = (path.into(), name.clone(), shape.clone());
                return Err(ModelError::WrongShape { path, name, actual, expected });
            }
        }
        let known: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        refuse_unexplained(self.0.keys().map(String::as_str).filter(|name| !known.contains(name)), path)
    }
}

/// An error that lists `names`, if there are any.
fn refuse_unexplained<'a>(names: impl Iterator<Item = &'a str>, path: &Path) -> Result<(), ModelError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let names_text = if names.len() > SHOWN { format!("{shown}, ...") } else { shown };
    Err(ModelError::UnexplainedTensors { path: path.into(), count: names.len(), names: names_text })
}

impl Weights {
    /// The tokenizer's parameters as `encoder.*` and `decoder.*`, from a tokenizer's checkpoint or from the frozen copy
    /// inside an AR checkpoint (`first_stage_model.*`).
    ///
    /// # Errors
    /// No tokenizer in the file, no EMA copy of it, tensors that nothing accounts for, or values that are not finite.
    pub fn tokenizer_params(&self, variant: Variant) -> Result<Params, ModelError> {
        self.check_explained()?;
        let own: Vec<&str> = self.names().filter(|name| Part::of(name) == Part::Tokenizer).collect();
        if own.is_empty() && self.has(Part::Autoregressive) {
            return Err(ModelError::OtherModel {
                path: self.path().into(),
                holds: "an autoregressive model without its tokenizer",
                advice: "give the tokenizer's own weights, and this file where a checkpoint is asked for",
            });
        }
        let prefix = if own.iter().any(|name| name.starts_with(FROZEN_PREFIX)) { FROZEN_PREFIX } else { "" };
        let ema = |name: &str| format!("{prefix}{EMA_PREFIX}{}", name.replace('.', ""));
        let mut params = Params::default();
        for (stored, name) in own.iter().filter_map(|stored| Some((stored, stored.strip_prefix(prefix)?))) {
            let wanted = if variant == Variant::Ema { ema(name) } else { stored.to_string() };
            if variant == Variant::Ema && !self.contains(&wanted) {
                return Err(ModelError::NoEma { path: self.path().into() });
            }
            params.0.insert(name.to_string(), self.parameter(&wanted)?);
        }
        let training_only = self.names().count() - params.len();
        tracing::debug!(path = %self.path().display(), training_only, "tensors that inference does not need");
        Ok(params)
    }

    /// Whether an averaged copy of every parameter of the tokenizer is here.
    pub fn has_ema(&self) -> bool {
        let ema = |name: &str| {
            let (prefix, inner) = name.strip_prefix(FROZEN_PREFIX).map_or(("", name), |inner| (FROZEN_PREFIX, inner));
            format!("{prefix}{EMA_PREFIX}{}", inner.replace('.', ""))
        };
        let mut own = self.names().filter(|name| Part::of(name) == Part::Tokenizer).peekable();
        own.peek().is_some() && own.all(|name| self.contains(&ema(name)))
    }

    /// Refuses tensors that no layout of the reference, and none of this program, accounts for.
    ///
    /// # Errors
    /// The first ten of them and their number.
    pub fn check_explained(&self) -> Result<(), ModelError> {
        refuse_unexplained(self.names().filter(|name| Part::of(name) == Part::Unexplained), self.path())
    }

    /// The parameters below `prefix`, without it.
    ///
    /// # Errors
    /// A tensor is damaged, or has values that are not finite.
    pub fn params_below(&self, prefix: &str) -> Result<Params, ModelError> {
        let below = self.names().filter_map(|name| Some((name, name.strip_prefix(prefix)?.to_string())));
        below.map(|(stored, name)| Ok((name, self.parameter(stored)?))).collect()
    }
}
