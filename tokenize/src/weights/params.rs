//! Named tensors under the model's own names, and how the variants of a checkpoint map to them.

use super::Weights;
use crate::TokenizeError;
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
    type Err = TokenizeError;

    fn from_str(text: &str) -> Result<Self, TokenizeError> {
        match text {
            "raw" => Ok(Variant::Raw),
            "ema" => Ok(Variant::Ema),
            _ => Err(TokenizeError::Setting { what: "weight variant", value: text.into(), expected: "`raw` or `ema`" }),
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
    /// When there is none: [`Params::check`] comes first.
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

    /// Copies on `device` with `kind`; tensors that fit already are shared.
    pub fn to_kind_and_device(&self, kind: Kind, device: Device) -> Params {
        self.iter().map(|(name, tensor)| (name.to_string(), tensor.to_device(device).to_kind(kind))).collect()
    }

    /// Checks that exactly `expected` is here, with these shapes.
    ///
    /// # Errors
    /// The first missing or misshapen tensor, or the list of unexplained ones. `wanted` says what was looked for.
    pub fn check(
        &self,
        expected: &[(String, Vec<i64>)],
        path: &Path,
        wanted: &'static str,
    ) -> Result<(), TokenizeError> {
        let missing: Vec<&String> = expected.iter().map(|(n, _)| n).filter(|n| !self.0.contains_key(*n)).collect();
        if let Some(first) = missing.first() {
            let (path, name, others) = (path.into(), first.to_string(), missing.len() - 1);
            return Err(TokenizeError::MissingTensor { path, name, others, wanted });
        }
        for (name, shape) in expected {
            let actual = self.0[name].size();
            if actual != *shape {
                let (path, name, expected) = (path.into(), name.clone(), shape.clone());
                return Err(TokenizeError::WrongShape { path, name, actual, expected });
            }
        }
        let known: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        refuse_unexplained(self.0.keys().map(String::as_str).filter(|name| !known.contains(name)), path)
    }
}

/// An error that lists `names`, if there are any.
fn refuse_unexplained<'a>(names: impl Iterator<Item = &'a str>, path: &Path) -> Result<(), TokenizeError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let names_text = if names.len() > 5 { format!("{shown}, ...") } else { shown };
    Err(TokenizeError::UnexplainedTensors { path: path.into(), count: names.len(), names: names_text })
}

/// Parts of a training checkpoint that inference does not need.
const TRAINING_ONLY: [&str; 3] = ["loss.", "model_ema.", "transformer."];

impl Weights {
    /// The tokenizer's parameters as `encoder.*` and `decoder.*`, from a tokenizer's checkpoint or from the frozen copy
    /// inside an AR checkpoint (`first_stage_model.*`).
    ///
    /// # Errors
    /// No tokenizer in the file, no EMA copy of it, or tensors that nothing accounts for.
    pub fn tokenizer_params(&self, variant: Variant) -> Result<Params, TokenizeError> {
        let frozen = "first_stage_model.";
        let prefix = if self.names().any(|n| n.starts_with("first_stage_model.encoder.")) { frozen } else { "" };
        let own = |name: &str| {
            let name = name.strip_prefix(prefix)?;
            (name.starts_with("encoder.") || name.starts_with("decoder.")).then(|| name.to_string())
        };
        let skipped = |name: &str| {
            let name = name.strip_prefix(frozen).unwrap_or(name);
            TRAINING_ONLY.iter().any(|part| name.starts_with(part))
        };
        refuse_unexplained(self.names().filter(|name| own(name).is_none() && !skipped(name)), self.path())?;
        let ema = |name: &str| format!("{prefix}model_ema.{}", name.replace('.', ""));
        let mut params = Params::default();
        for (stored, name) in self.names().filter_map(|stored| Some((stored, own(stored)?))) {
            let wanted = if variant == Variant::Ema { ema(&name) } else { stored.to_string() };
            if variant == Variant::Ema && !self.contains(&wanted) {
                return Err(TokenizeError::NoEma { path: self.path().into() });
            }
            params.0.insert(name, self.tensor(&wanted)?);
        }
        let training_only = self.names().count() - params.len();
        tracing::debug!(path = %self.path().display(), training_only, "tensors that inference does not need");
        Ok(params)
    }

    /// The parameters below `prefix`, without it.
    ///
    /// # Errors
    /// A damaged tensor.
    pub fn params_below(&self, prefix: &str) -> Result<Params, TokenizeError> {
        let below = self.names().filter_map(|name| Some((name, name.strip_prefix(prefix)?.to_string())));
        below.map(|(stored, name)| Ok((name, self.tensor(stored)?))).collect()
    }
}
