//! Configuration files: TOML with presets, `--set key=value`, and an error that suggests the nearest key. The reference's YAML
//! files are converted (module `reference`).
//!
//! What a run uses is the fully resolved configuration, which is written into its folder.

mod reference;
mod rules;

use crate::TrainError;
use reference::Converted;
pub use reference::{Reference, Rule};
pub(crate) use rules::{AR, TOKENIZER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
pub(crate) use tokengrid_model::section;
use toml::Table;
pub use toml::Value;

/// A whole configuration: sections with known keys, and named presets of the model.
pub trait Config: Serialize + DeserializeOwned {
    /// Section names with their keys.
    fn sections() -> &'static [(&'static str, &'static [&'static str])];

    /// The values that `[model] preset = "..."` stands for, as TOML; `None` for an unknown name.
    fn preset(name: &str) -> Option<&'static str>;

    /// Names of the presets, for messages.
    fn preset_names() -> &'static str;

    /// The files of the reference that it can be made from.
    fn reference() -> &'static Reference;

    /// Names of the files that a checkpoint must have for a run to continue from it.
    fn resumes_from(&self) -> Vec<&'static str>;

    /// Checks what types cannot express.
    ///
    /// # Errors
    /// The key and what would be right.
    fn validate(&self) -> Result<(), (&'static str, String)>;
}

/// What was typed: a file, overrides, and flags that stand for a key.
#[derive(Debug, Default)]
pub struct Typed<'a> {
    /// `--config`, if any.
    pub file: Option<&'a Path>,
    /// `--set section.key=value`, in order.
    pub set: &'a [String],
    /// Flags such as `--cache`: key and value, which win.
    pub flags: Vec<(&'a str, Value)>,
}

/// Checks Adam's decay rates. At 1 a moment never forgets, and its bias cannot be corrected.
pub(crate) fn check_betas(betas: [f64; 2]) -> Result<(), (&'static str, String)> {
    match betas.into_iter().find(|beta| !(0.0..1.0).contains(beta)) {
        Some(beta) => Err(("train.betas", format!("{beta} is not a decay rate; expected 0 or more, and less than 1"))),
        None => Ok(()),
    }
}

/// A complete, checked configuration.
#[derive(Debug)]
pub struct Resolved<C> {
    /// The configuration.
    pub config: C,
    /// What was typed, and the preset's values; all other keys have their defaults.
    typed: Table,
    /// Settings of a YAML file of the reference that are not honoured, one line each.
    pub not_honoured: Vec<String>,
    /// Settings of such a file that are made elsewhere here (flags, launcher, run folder), one line each.
    pub elsewhere: Vec<String>,
    /// Samples per step on all devices together by such a file.
    pub global_batch: Option<usize>,
}

impl<C> Resolved<C> {
    /// Whether `section.key` was typed, in the file, by flag or by preset.
    pub(crate) fn is_typed(&self, key: &str) -> bool {
        let (section, key) = key.split_once('.').unwrap_or((key, ""));
        self.typed.get(section).and_then(Value::as_table).is_some_and(|section| section.contains_key(key))
    }
}

/// As [`resolve_listing`], without the lists of settings that were not taken from a YAML file of the reference.
///
/// # Errors
/// As [`resolve_listing`].
pub fn resolve<C: Config>(typed: &Typed) -> Result<C, TrainError> {
    Ok(resolve_listing(typed)?.config)
}

/// Resolves what was typed to a complete, checked configuration.
///
/// # Errors
/// An unreadable file, broken TOML or YAML, unknown keys (with the nearest known one), values of a wrong type or range.
pub fn resolve_listing<C: Config>(typed: &Typed) -> Result<Resolved<C>, TrainError> {
    let mut place = typed.file.map_or("--set".to_string(), |path| path.display().to_string());
    let Converted { mut table, not_honoured, elsewhere, global_batch } =
        typed.file.map_or(Ok(Converted::default()), read::<C>)?;
    for assignment in typed.set {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            config_error(format!("--set {assignment}"), "expected section.key=value, for example train.max_steps=100")
        })?;
        insert(&mut table, key.trim(), parse_value(value.trim()))
            .map_err(|what| config_error(format!("--set {assignment}"), what))?;
    }
    for (key, value) in &typed.flags {
        insert(&mut table, key, value.clone()).map_err(|what| config_error(key.to_string(), what))?;
    }
    check_keys::<C>(&table, &place)?;
    let table = apply_preset::<C>(table, &place)?;
    let typed = table.clone();
    let config: C = table.try_into().map_err(|e: toml::de::Error| config_error(place.clone(), e.message()))?;
    config.validate().map_err(|(key, what)| {
        place = format!("{place}, `{key}`");
        config_error(place.clone(), what)
    })?;
    Ok(Resolved { config, typed, not_honoured, elsewhere, global_batch })
}

fn config_error(place: impl Into<String>, what: impl Into<String>) -> TrainError {
    TrainError::Config { place: place.into(), what: what.into() }
}

fn read<C: Config>(path: &Path) -> Result<Converted, TrainError> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io("read the configuration", path))?;
    if reference::is_yaml(path) {
        return reference::convert(&text, C::reference(), knows::<C>)
            .map_err(|what| config_error(path.display().to_string(), what));
    }
    let table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        config_error(format!("{}, line {line}", path.display()), e.message())
    })?;
    Ok(Converted { table, ..Converted::default() })
}

/// Whether there is a key `section.key`.
fn knows<C: Config>(key: &str) -> bool {
    let Some((section, key)) = key.split_once('.') else { return false };
    C::sections().iter().any(|(name, keys)| *name == section && keys.contains(&key))
}

/// A TOML value, or a string where the text is no TOML: `--set data.cache=some/dir` needs no quotes.
fn parse_value(text: &str) -> Value {
    let table = format!("v = {text}").parse::<Table>().ok();
    table.and_then(|mut table| table.remove("v")).unwrap_or_else(|| Value::String(text.to_string()))
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let (section, key) = key.split_once('.').ok_or_else(|| format!("`{key}` names no section: write section.{key}"))?;
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let section_table = entry.as_table_mut().ok_or_else(|| format!("`{section}` is no section"))?;
    section_table.insert(key.to_string(), value);
    Ok(())
}

fn check_keys<C: Config>(table: &Table, place: &str) -> Result<(), TrainError> {
    for (section, value) in table {
        let known = C::sections().iter().find(|(name, _)| name == section);
        let Some((_, keys)) = known else {
            let names = C::sections().iter().map(|(name, _)| *name);
            return Err(config_error(place, unknown("section", section, names)));
        };
        let section_table =
            value.as_table().ok_or_else(|| config_error(place, format!("`{section}` is no section")))?;
        for key in section_table.keys() {
            let is_preset = section == "model" && key == "preset";
            if !is_preset && !keys.contains(&key.as_str()) {
                return Err(config_error(format!("{place}, [{section}]"), unknown("key", key, keys.iter().copied())));
            }
        }
    }
    Ok(())
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|k| (strsim::jaro_winkler(name, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, nearest)) if score > 0.6 => format!("unknown {what} `{name}`; did you mean `{nearest}`?"),
        _ => format!("unknown {what} `{name}`"),
    }
}

/// Fills in the preset's values where nothing was typed.
fn apply_preset<C: Config>(mut table: Table, place: &str) -> Result<Table, TrainError> {
    let model = table.get_mut("model").and_then(Value::as_table_mut);
    let Some(name) = model.and_then(|model| model.remove("preset")) else { return Ok(table) };
    let name = name.as_str().unwrap_or_default().to_string();
    let text = C::preset(&name)
        .ok_or_else(|| config_error(place, format!("unknown preset `{name}`; there are {}", C::preset_names())))?;
    let mut base: Table =
        text.parse().map_err(|e: toml::de::Error| config_error(format!("preset {name}"), e.message()))?;
    for (section, value) in table {
        let merged = base.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let (Value::Table(merged), Value::Table(value)) = (merged, value) {
            merged.extend(value);
        }
    }
    Ok(base)
}

/// The configuration as the TOML that `config.toml` holds.
///
/// # Errors
/// Values that TOML cannot express.
pub fn to_toml<C: Config>(config: &C) -> Result<String, TrainError> {
    toml::to_string_pretty(config).map_err(|e| config_error("configuration", e.to_string()))
}

/// A configuration written by [`to_toml`] of this or an earlier version; keys that it lacks have their defaults. `None` for
/// anything else.
pub(crate) fn recorded<C: Config>(text: &str) -> Option<Table> {
    let table: Table = text.parse().ok()?;
    let is_complete = C::sections().iter().all(|(section, _)| table.contains_key(*section));
    check_keys::<C>(&table, "").ok().filter(|()| is_complete)?;
    let config: C = table.try_into().ok()?;
    to_toml(&config).ok()?.parse().ok()
}

/// The first key whose value differs between two resolved configurations, with both values; keys in `free` may differ.
pub(crate) fn first_difference(was: &Table, now: &Table, free: &[&str]) -> Option<(String, String, String)> {
    let show = |value: Option<&Value>| value.map_or("not set".to_string(), Value::to_string);
    let empty = Table::new();
    let sections: std::collections::BTreeSet<&String> = was.keys().chain(now.keys()).collect();
    for section in sections {
        let side = |table: &'_ Table| table.get(section).and_then(Value::as_table).cloned().unwrap_or(empty.clone());
        let (was, now) = (side(was), side(now));
        let keys: std::collections::BTreeSet<&String> = was.keys().chain(now.keys()).collect();
        for key in keys {
            let name = format!("{section}.{key}");
            if was.get(key) != now.get(key) && !free.contains(&name.as_str()) {
                return Some((name, show(was.get(key)), show(now.get(key))));
            }
        }
    }
    None
}
