//! The sources of a cache, from the command line: one, one per split (`train=DIR`), or those of all parts in order.

use crate::exit::Usage;
use std::path::PathBuf;
use tokengrid_cache::Split;

/// The sources in the order of the cache's images, each with its split.
///
/// # Errors
/// A source names a split that the cache does not have, or a split of the cache has no source.
pub(crate) fn named_sources(splits: &[Split], typed: &[PathBuf]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let names = || splits.iter().map(|split| split.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut named = Vec::new();
    for path in typed {
        // A path may contain an equals sign: an existing path is taken as a path.
        let parts = path.to_str().filter(|_| !path.exists()).and_then(|text| text.split_once('='));
        match parts {
            Some((name, rest)) if splits.iter().any(|split| split.name == name) => {
                named.push((name.to_owned(), PathBuf::from(rest)));
            }
            Some((name, _)) if !splits.is_empty() => {
                return Err(Usage(format!(
                    "--source {}: the cache has no split {name}, but {}",
                    path.display(),
                    names()
                ))
                .into());
            }
            _ if splits.len() > 1 => {
                let each: Vec<_> = splits.iter().map(|split| format!("--source {}=SOURCE", split.name)).collect();
                return Err(Usage(format!("the cache has the splits {}: give {}", names(), each.join(" "))).into());
            }
            _ => named.push((splits.first().map_or(String::new(), |split| split.name.clone()), path.clone())),
        }
    }
    let place = |name: &str| splits.iter().position(|split| split.name == name);
    if let Some(split) = splits.iter().find(|split| named.iter().all(|(name, _)| *name != split.name)) {
        return Err(Usage(format!("the cache has a split {0}, too: give --source {0}=SOURCE", split.name)).into());
    }
    // Stable: several sources of one split keep their order.
    named.sort_by_key(|(name, _)| place(name));
    Ok(named)
}
