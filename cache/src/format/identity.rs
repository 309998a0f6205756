//! What makes two jobs the same: who made the tokens, of what; and in which field two of them differ.

use crate::format::attached::AttachedFile;
use crate::format::hash::blake3_hex;
use crate::format::split::Split;
use crate::format::text::shown;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Who made the tokens. Everything that changes tokens belongs here: a cache is continued and accepted only where all
/// of it is equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerInfo {
    /// A hash of the encoder's weights.
    pub fingerprint: String,
    /// The name by which a user knows it: a file name, or `tiny`.
    pub name: String,
    /// Which weights of a checkpoint: `raw` or `ema`.
    pub variant: String,
    /// The arithmetic: `fp32`, `tf32`, `bf16` or `fp16`.
    pub precision: String,
    /// More facts by name (architecture, margins, ...).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
}

/// Where the images came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// What kind of source: `class folders`, `file list`, `webdataset`, ...
    pub kind: String,
    /// Where it is: a path or a list of paths, as text.
    pub location: String,
    /// Inputs that were listed, before any was quarantined: images are numbered `0..images`.
    pub images: usize,
    /// Inputs that were left out on purpose before the listing.
    pub excluded: usize,
    /// More facts by name, of sources that have some: what an export needs to give a set back as it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
    /// Files of the source that are kept in the cache's folder, below [`crate::ATTACHED_FOLDER`], by their relative path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attached: BTreeMap<String, AttachedFile>,
}

/// The part of a job that decides the rows, whatever the ranks and the layout: equal for every shard of a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobIdentity {
    pub(crate) grid: String,
    pub(crate) bits: u32,
    pub(crate) views: u32,
    // Left out where they say nothing, so that the ids of ordinary jobs are those of jobs before these fields.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) first_view: u32,
    pub(crate) tokenizer: TokenizerInfo,
    pub(crate) recipe: Value,
    pub(crate) source: SourceInfo,
    pub(crate) classes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) splits: Vec<Split>,
}

/// For `serde`, which passes a reference.
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl JobIdentity {
    /// The job's id: BLAKE3 of its canonical JSON. Shards carry it, so that one of another job is known by name.
    pub(crate) fn id(&self) -> String {
        blake3_hex(canonical_json(&to_value(self)).as_bytes())
    }

    /// The first field in which two jobs differ, as (dotted name, there, here).
    pub(crate) fn first_difference(&self, other: &JobIdentity) -> Option<(String, String, String)> {
        difference("", &to_value(self), &to_value(other))
    }
}

/// Through text, so that what was read from a file and what was given by a caller compare as equal: 1.0 and 1.0000.
fn to_value(identity: &JobIdentity) -> Value {
    // Strings, numbers and maps with string keys: serializing them cannot fail.
    serde_json::to_string(identity).and_then(|text| serde_json::from_str(&text)).unwrap_or(Value::Null)
}

/// JSON without spaces and with sorted keys, whichever map type `serde_json` was built with.
pub(crate) fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let fields: Vec<_> =
                sorted.iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical_json(v))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical_json).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn difference(path: &str, there: &Value, here: &Value) -> Option<(String, String, String)> {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                difference(&name, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        _ if there == here => None,
        _ => Some((path.to_owned(), shorten(there), shorten(here))),
    }
}

fn shorten(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        other => shown(&other.to_string()),
    }
}
