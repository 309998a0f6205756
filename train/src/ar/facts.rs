//! What must be the same in all processes of a run.

use super::config::ArConfig;
use super::trainer::FREE;
use crate::TrainError;
use crate::config::to_toml;
use crate::process_group::Fact;
use std::path::Path;
use tokengrid_cache::Manifest;

/// The settings of a run, and what its caches hold. Where caches lie may differ from machine to machine.
///
/// # Errors
/// A cache that cannot be read.
pub fn facts(config: &ArConfig) -> Result<Vec<Fact>, TrainError> {
    let mut settings: toml::Table = to_toml(config)?.parse().unwrap_or_default();
    for (section, key) in FREE.iter().filter_map(|name| name.split_once('.')) {
        // Free keys may change when a run continues, but must agree among its processes; only paths may differ.
        let lies_elsewhere = section == "data";
        if let Some(section) = settings.get_mut(section).and_then(toml::Value::as_table_mut).filter(|_| lies_elsewhere)
        {
            section.remove(key);
        }
    }
    let mut facts = vec![Fact::toml("the configuration", settings.to_string())];
    let caches = [
        ("the cache's content hash", Some(&config.data.cache)),
        ("the validation cache's", config.data.val_cache.as_ref()),
    ];
    for (name, path) in caches {
        let Some(path) = path.filter(|path| !path.is_empty()) else { continue };
        facts.push(Fact::new(name, Manifest::read(Path::new(path))?.content_hash));
    }
    Ok(facts)
}
