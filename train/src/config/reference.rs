//! Configurations of the reference: its YAML files, as far as their keys have a counterpart here.
//!
//! A file is flattened to leaves with dotted names. A rule (module `rules`) says what becomes of each; a leaf without one is
//! reported, so that no setting of a file is dropped silently. Settings that would train another model are refused.

use super::rules::{COMMON, KINDS, NOT_HERE};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use toml::{Table, Value};

/// Which files of the reference a configuration can be made from.
#[derive(Debug)]
pub struct Reference {
    /// `model.class_path`, or its end.
    pub class: &'static str,
    /// The command that takes it.
    pub command: &'static str,
    /// Rules for its leaves; the first that matches applies.
    pub rules: &'static [(&'static str, Rule)],
    /// Leaves that a file must have: without them the reference trains something that cannot be trained here.
    pub required: &'static [&'static str],
    /// Leaves whose defaults in the reference are not those here: leaf, key, and the reference's value as TOML.
    pub defaults: &'static [(&'static str, &'static str, &'static str)],
}

/// How a leaf is converted, or, if the name ends in `.*`, all leaves below.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Its value is written to this key.
    Key(&'static str),
    /// The precision: half precision becomes the one that is given here.
    Precision(&'static str),
    /// The only behaviour here is that of this value; any other is reported.
    Always(&'static str),
    /// The only behaviour here is that of this value; any other means another model, loss or schedule, and the file is
    /// refused.
    Only(&'static str),
    /// Not honoured, for this reason.
    Not(&'static str),
    /// The file is refused, for this reason.
    Refused(&'static str),
}

const CLASS_PATH: &str = "model.class_path";
const PRECISION: &str = "train.precision";
const FAMILY: &str = "Open_MAGVIT2";

/// A converted file.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The configuration.
    pub table: Table,
    /// One line for each leaf, or group of leaves, that is not honoured.
    pub not_honoured: Vec<String>,
    /// One line for each that is set elsewhere here: flags, launcher, run folder.
    pub elsewhere: Vec<String>,
    /// Samples per step on all devices together by the file.
    pub global_batch: Option<usize>,
}

/// Whether a file of this name is one of the reference's.
pub(super) fn is_yaml(path: &std::path::Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["yaml", "yml"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Converts a file. `knows` says whether there is such a key.
///
/// # Errors
/// What is wrong: no YAML, a value that TOML cannot express, or a model of another kind.
pub(super) fn convert(text: &str, reference: &Reference, knows: impl Fn(&str) -> bool) -> Result<Converted, String> {
    let documents = Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    let [document] = &documents[..] else { return Err(format!("{} YAML documents; expected one", documents.len())) };
    let mut leaves = vec![];
    flatten("", document, &mut leaves)?;
    check_class(&leaves, reference)?;
    let is_there = |name: &str| leaves.iter().any(|(leaf, _)| leaf == name);
    if let Some(name) = reference.required.iter().find(|name| !is_there(name)) {
        return Err(format!("`{name}` is not given, and what the reference does without it is not here"));
    }
    let mut converted = Converted::default();
    for (_, key, value) in reference.defaults.iter().filter(|(name, ..)| !is_there(name)) {
        put(&mut converted.table, key, super::parse_value(value));
    }
    for (name, value) in &leaves {
        match rule_for(name, reference) {
            Some((_, Rule::Key(key))) if is_unlimited(key, value) => converted.unlimited(name, key, value),
            Some((_, Rule::Key(key))) if knows(key) && fits(key, value) => {
                put(&mut converted.table, key, value.clone())
            }
            Some((_, Rule::Precision(half))) if knows(PRECISION) => converted.precision(name, value, half),
            Some((_, Rule::Always(expected) | Rule::Only(expected))) if plain(value) == expected => {}
            Some((_, Rule::Only(expected))) => {
                return Err(format!("`{name}` is {}: only {expected} can be trained here", plain(value)));
            }
            Some((_, Rule::Refused(reason))) => return Err(format!("`{name}` is {}: {reason}", plain(value))),
            Some((_, Rule::Not(""))) => {}
            Some((pattern, Rule::Not(reason))) => note(&mut converted.elsewhere, pattern, value, reason),
            Some((_, Rule::Key(key))) if knows(key) => {
                converted.not(name, value, &format!("`{key}` cannot have this value"));
            }
            Some((_, Rule::Always(expected))) => converted.not(name, value, &format!("it is always {expected}")),
            Some((_, Rule::Key(_) | Rule::Precision(_))) | None => {
                converted.not(name, value, "there is no such setting")
            }
        }
    }
    converted.set_end();
    converted.global_batch = global_batch(&leaves);
    Ok(converted)
}

impl Converted {
    /// Handles -1, the reference's "no limit": the number of epochs has a default here nevertheless.
    fn unlimited(&mut self, name: &str, key: &str, value: &Value) {
        if key == EPOCHS {
            self.not(
                name,
                value,
                "a run has an end here, after 1000 epochs unless `train.max_steps` or `train.epochs` say otherwise",
            );
        }
    }

    /// The reference ends a run at whichever limit comes first, and after 1000 epochs where a file names none.
    fn set_end(&mut self) {
        let train = self.table.get("train").and_then(Value::as_table);
        let limit = |key: &str| train.and_then(|train| train.get(key)).cloned();
        match (limit("epochs"), limit("max_steps")) {
            (Some(epochs), Some(steps)) => {
                let line = format!("trainer.max_epochs = {epochs}: the run ends at `trainer.max_steps`, {steps}");
                self.not_honoured.push(line);
            }
            (None, None) => put(&mut self.table, EPOCHS, Value::Float(1000.0)),
            _ => {}
        }
    }

    fn precision(&mut self, name: &str, value: &Value, half: &str) {
        let precision = match plain(value).as_str() {
            "16-mixed" | "16-true" | "16" => half,
            "bf16-mixed" | "bf16-true" | "bf16" => "bf16",
            "32-true" | "32" => "fp32",
            _ => return self.not(name, value, "set `train.precision`"),
        };
        if half != "fp16" && plain(value).starts_with("16") {
            self.not(name, value, &format!("{half} takes its place; `train.precision=fp16` is what it asks for"));
        }
        put(&mut self.table, PRECISION, Value::String(precision.into()));
    }

    fn not(&mut self, name: &str, value: &Value, reason: &str) {
        note(&mut self.not_honoured, name, value, reason);
    }
}

/// A group is reported once.
fn note(lines: &mut Vec<String>, name: &str, value: &Value, reason: &str) {
    let line = match name.strip_suffix(".*") {
        Some(group) => format!("{group}: {reason}"),
        None => format!("{name} = {}: {reason}", plain(value)),
    };
    if !lines.contains(&line) {
        lines.push(line);
    }
}

/// Samples per step, where the file says on how many devices.
fn global_batch(leaves: &[(String, Value)]) -> Option<usize> {
    let count = |name: &str| {
        let value = leaves.iter().find(|(leaf, _)| leaf == name).map(|(_, value)| value)?;
        value.as_integer().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0)
    };
    let devices = count("trainer.devices")?.checked_mul(count("trainer.num_nodes").unwrap_or(1))?;
    let accumulated = count("trainer.accumulate_grad_batches").unwrap_or(1);
    devices.checked_mul(count("data.init_args.batch_size")?)?.checked_mul(accumulated)
}

fn check_class(leaves: &[(String, Value)], reference: &Reference) -> Result<(), String> {
    let class = leaves.iter().find(|(name, _)| name == CLASS_PATH).map(|(_, value)| plain(value));
    let Some(class) = class else {
        return Err(format!("no `{CLASS_PATH}`: YAML is read only where it is a configuration of the reference"));
    };
    if !class.contains(FAMILY) {
        return Err(format!("`{class}` is no model of Open-MAGVIT2, the only ones that there are here"));
    }
    if let Some((_, reason)) = NOT_HERE.iter().find(|(name, _)| is_class(&class, name)) {
        return Err(format!("`{class}` is {reason}, which cannot be trained here"));
    }
    match KINDS.iter().find(|known| is_class(&class, known.class)) {
        Some(known) if known.class == reference.class => Ok(()),
        Some(known) => Err(format!("it configures `{class}`: use `{}`", known.command)),
        None => Err(format!("`{class}` is a model that is not here")),
    }
}

/// Whether `path` is the class `name`, under whichever package.
fn is_class(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|package| package.is_empty() || package.ends_with('.'))
}

fn rule_for(name: &str, reference: &Reference) -> Option<(&'static str, Rule)> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    reference.rules.iter().chain(COMMON).copied().find(|(pattern, _)| fits(pattern))
}

const EPOCHS: &str = "train.epochs";

/// Whether this is how the reference writes that there is no limit.
fn is_unlimited(key: &str, value: &Value) -> bool {
    [EPOCHS, "train.max_steps"].contains(&key) && value.as_integer() == Some(-1)
}

/// A seed may be `true`, which means any; numbers and lists fit everywhere else, and are checked with the configuration.
fn fits(key: &str, value: &Value) -> bool {
    key != "train.seed" || value.is_integer()
}

fn put(table: &mut Table, key: &str, value: Value) {
    let (section, key) = key.split_once('.').expect("rules name section and key");
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Some(section) = section.as_table_mut() {
        section.insert(key.to_string(), value);
    }
}

/// The leaves below `node`: scalars and lists of scalars. Empty ones set nothing.
fn flatten(name: &str, node: &Yaml, leaves: &mut Vec<(String, Value)>) -> Result<(), String> {
    let below = |part: &str| if name.is_empty() { part.to_string() } else { format!("{name}.{part}") };
    match node {
        Yaml::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = key.as_str().ok_or_else(|| format!("`{name}` has a key that is not text"))?;
                flatten(&below(key), value, leaves)?;
            }
        }
        Yaml::Sequence(items) if items.iter().any(|item| item.is_mapping() || item.is_sequence()) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&below(&i.to_string()), item, leaves)?;
            }
        }
        Yaml::Sequence(items) => {
            let values = items.iter().filter_map(|item| scalar(name, item).transpose());
            leaves.push((name.to_string(), Value::Array(values.collect::<Result<_, _>>()?)));
        }
        _ => leaves.extend(scalar(name, node)?.map(|value| (name.to_string(), value))),
    }
    Ok(())
}

fn scalar(name: &str, node: &Yaml) -> Result<Option<Value>, String> {
    match node {
        Yaml::Value(Scalar::Null) => Ok(None),
        Yaml::Value(Scalar::Boolean(value)) => Ok(Some(Value::Boolean(*value))),
        Yaml::Value(Scalar::Integer(value)) => Ok(Some(Value::Integer(*value))),
        Yaml::Value(Scalar::FloatingPoint(value)) => Ok(Some(Value::Float(value.into_inner()))),
        // The reference's files write booleans as Python does.
        Yaml::Value(Scalar::String(value)) if *value == "True" || *value == "False" => {
            Ok(Some(Value::Boolean(*value == "True")))
        }
        Yaml::Value(Scalar::String(value)) => Ok(Some(Value::String(value.to_string()))),
        _ => Err(format!("`{name}` has a value that cannot be read")),
    }
}

/// A value without TOML's quotes, for comparisons and messages.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
