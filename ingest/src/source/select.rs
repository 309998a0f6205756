//! Images that are excluded from a source: those that options name, and those beyond a limit.

use super::keys::file_name;
use super::table::Table;
use super::{Contents, Source, SourceOptions};
use crate::OPEN_MAGVIT2_EXCLUDE;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

impl Contents {
    /// Leaves out what the options say.
    pub(super) fn select(mut self, options: &SourceOptions) -> Source {
        let table = std::mem::take(&mut self.table);
        let mut exclude = Exclude::new(options);
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut excluded = self.excluded;
        let mut kept = Vec::new();
        for row in 0..table.len() {
            if kept.len() == limit {
                break;
            } else if exclude.names(table.key(row)) {
                excluded += 1;
            } else {
                kept.push(row);
            }
        }
        self.table = if kept.len() == table.len() { table } else { table.gather(kept.into_iter(), |_, key| key) };
        self.named.extend(exclude.into_matched());
        // Of a listing that stopped early it is not known what else there would have been.
        if self.table.len() < limit {
            self.notes.extend(note_on_unmatched(&options.exclude, &self.named));
        }
        Source { contents: self, excluded }
    }
}

/// A message about names to be left out that no image has. Those of a preset are of a larger set.
fn note_on_unmatched(names: &[String], matched: &HashSet<String>) -> Option<String> {
    const NAMED: usize = 3;
    let typed: BTreeSet<&str> =
        names.iter().map(String::as_str).filter(|name| !OPEN_MAGVIT2_EXCLUDE.contains(name)).collect();
    let unmatched: Vec<&str> = typed.iter().copied().filter(|name| !matched.contains(*name)).collect();
    let shown =
        unmatched.iter().take(NAMED).map(|name| format!("'{}'", name.escape_debug())).collect::<Vec<_>>().join(", ");
    let more = if unmatched.len() > NAMED { ", ..." } else { "" };
    (!unmatched.is_empty()).then(|| {
        let (count, all) = (unmatched.len(), typed.len());
        format!("{count} of {all} names to exclude: no image has this key or file name ({shown}{more})")
    })
}

/// Names of images to be left out, and whether an image had each.
struct Exclude<'a>(HashMap<&'a str, bool>);

impl<'a> Exclude<'a> {
    fn new(options: &'a SourceOptions) -> Exclude<'a> {
        Exclude(options.exclude.iter().map(|name| (name.as_str(), false)).collect())
    }

    fn names(&mut self, key: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut is_named = false;
        for name in [key, file_name(key)] {
            if let Some(has_image) = self.0.get_mut(name) {
                (*has_image, is_named) = (true, true);
            }
        }
        is_named
    }

    fn into_matched(self) -> impl Iterator<Item = String> {
        self.0.into_iter().filter(|(_, has_image)| *has_image).map(|(name, _)| name.to_owned())
    }
}

/// Collects the images of a folder or list in order, applying [`SourceOptions`] as they come: a listing may stop early.
pub(super) struct Collector<'a> {
    options: &'a SourceOptions,
    exclude: Exclude<'a>,
    pub(super) table: Table,
    pub(super) excluded: usize,
    pub(super) ignored: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(options: &'a SourceOptions) -> Collector<'a> {
        Collector { options, exclude: Exclude::new(options), table: Table::default(), excluded: 0, ignored: 0 }
    }

    /// Takes an image. `path` is given where the key is not the file's relative path.
    pub(super) fn add(&mut self, key: &str, path: Option<PathBuf>, label: i32) {
        if self.exclude.names(key) {
            self.excluded += 1;
        } else if !self.is_full() {
            self.table.push_file(key, path, label);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.table.len() >= limit)
    }

    pub(super) fn finish(self, root: &Path, kind: &'static str, classes: Vec<String>) -> Contents {
        let Collector { mut table, excluded, ignored, exclude, .. } = self;
        table.shrink_to_fit();
        let named = exclude.into_matched().collect();
        Contents { kind, table, classes, excluded, named, ignored, ..Contents::new(root) }
    }
}
