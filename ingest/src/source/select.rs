//! Images that are excluded from a source: those that options name, and those beyond a limit.

use super::keys::file_name;
use super::table::Table;
use super::{Contents, Source, SourceOptions};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

impl Contents {
    /// Leaves out what the options say.
    pub(super) fn select(mut self, options: &SourceOptions) -> Source {
        let table = std::mem::take(&mut self.table);
        let exclude = Exclude::new(options);
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
        Source { contents: self, excluded }
    }
}

/// Names of images to be left out.
struct Exclude<'a>(HashSet<&'a str>);

impl<'a> Exclude<'a> {
    fn new(options: &'a SourceOptions) -> Exclude<'a> {
        Exclude(options.exclude.iter().map(String::as_str).collect())
    }

    fn names(&self, key: &str) -> bool {
        !self.0.is_empty() && (self.0.contains(key) || self.0.contains(file_name(key)))
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
        let Collector { mut table, excluded, ignored, .. } = self;
        table.shrink_to_fit();
        Contents { kind, table, classes, excluded, ignored, ..Contents::new(root) }
    }
}
