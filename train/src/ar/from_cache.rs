//! What a run takes from its cache where nothing was typed: the number of classes, the grid, and which images it trains on.

use super::config::ArConfig;
use super::data::splits;
use super::rows::Rows;
use crate::TrainError;
use crate::config::{Config, Resolved};
use crate::run::configuration;
use std::path::Path;
use tokengrid_cache::{Access, Manifest};

/// What `--split` calls all images of a cache that has splits.
const ALL: &str = "all";

/// The split that is trained on by default.
const TRAIN: &str = "train";

/// The splits that are validated on by default; the first that the cache has.
const VAL: [&str; 2] = ["val", "validation"];

/// Completes a configuration. A run that is already in `run` keeps what it was begun with. The lines say what was chosen.
///
/// # Errors
/// A cache that cannot be read, a split that is not in it, or a grid that no model has.
pub fn complete_from_cache(resolved: &mut Resolved<ArConfig>, run: Option<&Path>) -> Result<Vec<String>, TrainError> {
    let typed =
        ["model.class_num", "model.block_size", "data.split", "data.val_split"].map(|key| resolved.is_typed(key));
    let [class_num, block_size, split, val_split] = typed;
    let config = &mut resolved.config;
    if config.data.cache.is_empty() {
        return Ok(vec![]);
    }
    let mut lines = vec![];
    let begun = run.map(configuration::<ArConfig>).transpose()?.flatten();
    let manifest = Manifest::read(Path::new(&config.data.cache))?;
    match (&begun, class_num && block_size) {
        (_, true) => {}
        (Some(begun), false) => {
            config.model.class_num = if class_num { config.model.class_num } else { begun.model.class_num };
            config.model.block_size = if block_size { config.model.block_size } else { begun.model.block_size };
        }
        (None, false) => lines.push(model_of_cache(config, &manifest, !class_num, !block_size)?),
    }
    config.data.split = match (split, &begun) {
        (true, _) => chosen(config.data.split.take(), &manifest, &config.data.cache, "data.split")?,
        (false, Some(begun)) => begun.data.split.clone(),
        (false, None) => manifest.splits.iter().find(|split| split.name == TRAIN).map(|split| split.name.clone()),
    };
    lines.extend(training_images(config, &manifest));
    let val_manifest = config.data.val_cache.as_ref().map(|cache| Manifest::read(Path::new(cache))).transpose()?;
    config.data.val_split = match (val_split, &val_manifest) {
        (true, other) => {
            let cache = config.data.val_cache.as_ref().unwrap_or(&config.data.cache);
            chosen(config.data.val_split.take(), other.as_ref().unwrap_or(&manifest), cache, "data.val_split")?
        }
        (false, Some(other)) => val_split_of(other),
        // A loss on images that are trained on is no validation.
        (false, None) if config.data.split.is_none() => None,
        (false, None) => val_split_of(&manifest).filter(|val| config.data.split.as_ref() != Some(val)),
    };
    if let Some(split) = &config.data.val_split {
        lines.push(format!("validating on split `{split}`"));
    }
    let place = |key: &str| format!("{}, `{key}`", config.data.cache);
    config.validate().map_err(|(key, what)| TrainError::Config { place: place(key), what })?;
    Ok(lines)
}

/// Classes and grid as the cache has them, where they were not typed.
fn model_of_cache(
    config: &mut ArConfig,
    manifest: &Manifest,
    class_num: bool,
    block_size: bool,
) -> Result<String, TrainError> {
    let mut taken = vec![];
    if class_num {
        config.model.class_num = num_classes(manifest, &config.data.cache)?;
        taken.push(format!("model.class_num = {}", config.model.class_num));
    }
    if block_size {
        let grid = manifest.grid_spec();
        config.model.block_size = grid.num_tokens() as i64;
        taken.push(format!("model.block_size = {} ({}x{})", config.model.block_size, grid.height, grid.width));
    }
    Ok(format!("from the cache: {}", taken.join(", ")))
}

/// A cache of imported tokens may have labels without names.
fn num_classes(manifest: &Manifest, cache: &str) -> Result<i64, TrainError> {
    if !manifest.classes.is_empty() {
        return Ok(manifest.classes.len() as i64);
    }
    let largest = Rows::stream(Path::new(cache), Access::Map)?.largest_label();
    Ok(i64::from(largest + 1).max(1))
}

/// The split that was typed; `all` is not a split, unless the cache calls one so.
fn chosen(name: Option<String>, manifest: &Manifest, cache: &str, key: &str) -> Result<Option<String>, TrainError> {
    let Some(name) = name else { return Ok(None) };
    match manifest.splits.iter().any(|split| split.name == name) {
        true => Ok(Some(name)),
        false if name == ALL => Ok(None),
        false => Err(TrainError::Config {
            place: key.into(),
            what: format!("{cache} has no split `{name}`; its splits: {}; `{ALL}` takes every image", splits(manifest)),
        }),
    }
}

fn val_split_of(manifest: &Manifest) -> Option<String> {
    let has = |name: &str| manifest.splits.iter().any(|split| split.name == name);
    VAL.into_iter().find(|name| has(name)).map(String::from)
}

/// Which part of a cache with splits is trained on.
fn training_images(config: &ArConfig, manifest: &Manifest) -> Option<String> {
    let all = splits(manifest);
    match &config.data.split {
        _ if manifest.splits.is_empty() => None,
        Some(split) => Some(format!("training on split `{split}` of {all} (--split {ALL}: every image)")),
        None => Some(format!("training on all splits: {all}")),
    }
}

#[cfg(test)]
#[path = "from_cache_tests.rs"]
mod tests;
