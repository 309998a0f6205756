//! A model in the metadata of a safetensors file, so that no `config.toml` is needed beside it.

use super::config::ModelConfig;
use super::description::Untold;
use crate::weights::pt_metadata;
use serde_json::Value;
use std::collections::HashMap;

/// The model's hyper-parameters in the metadata of a safetensors file, as JSON. Heads and grid are null where unknown.
pub(super) const MODEL_KEY: &str = "tokengrid.model";
/// In the same place, the fingerprint of the tokenizer whose tokens the model was trained on.
pub(super) const TOKENIZER_KEY: &str = "tokengrid.tokenizer";
/// In the same place, names of the classes by index, as a JSON list.
pub(super) const CLASSES_KEY: &str = "tokengrid.classes";

/// Metadata of a complete model; `tokenizer` is the fingerprint of that whose tokens it was trained on.
pub fn of(model: &ModelConfig, tokenizer: Option<&str>) -> HashMap<String, String> {
    of_json(&to_json(model, Untold { n_head: Some(model.n_head), block_size: Some(model.block_size) }), tokenizer)
}

pub(super) fn of_json(model: &Value, tokenizer: Option<&str>) -> HashMap<String, String> {
    let mut metadata = pt_metadata();
    metadata.insert(MODEL_KEY.into(), model.to_string());
    let tokenizer = tokenizer.filter(|fingerprint| !fingerprint.is_empty());
    metadata.extend(tokenizer.map(|fingerprint| (TOKENIZER_KEY.to_string(), fingerprint.to_string())));
    metadata
}

/// All hyper-parameters; null where a number is not known.
pub(super) fn to_json(model: &ModelConfig, untold: Untold) -> Value {
    let mut json = serde_json::to_value(model).expect("numbers serialize");
    json["n_head"] = untold.n_head.into();
    json["block_size"] = untold.block_size.into();
    json
}

/// What [`to_json`] wrote.
pub(super) fn parse(json: &str) -> Result<(ModelConfig, Untold), serde_json::Error> {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(json)?;
    let mut take = |key: &str| fields.remove(key).map_or(Ok(None), serde_json::from_value);
    let recorded = Untold { n_head: take("n_head")?, block_size: take("block_size")? };
    Ok((serde_json::from_value(fields.into())?, recorded))
}
