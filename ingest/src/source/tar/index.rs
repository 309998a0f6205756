//! What the tars of a source hold together: rows, folders and labels, and the source that they become.

use super::Problem;
use super::reading::{Found, Link, Reading};
use super::sidecars::Sidecars;
use crate::error::IngestError;
use crate::source::cancel::Cancel;
use crate::source::classes::{class_folders, classes_by_label, doubts, label_by_folder};
use crate::source::files::{FileSet, SourceFile};
use crate::source::keys::file_key;
use crate::source::options::Columns;
use crate::source::parallel::in_parallel;
use crate::source::table::{Place, Table};
use crate::source::{Contents, Store, splits};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

/// What tars hold, in the order in which it was found.
#[derive(Default)]
pub(super) struct Index {
    pub(super) table: Table,
    /// Keys of folders that have members of their own.
    pub(super) folders: BTreeSet<String>,
    pub(super) sidecars: Sidecars,
    /// Whether images are in tars named after their class.
    pub(super) by_class: bool,
    pub(super) ignored: usize,
}

impl Index {
    /// Reads the tar at `path`, file number `number` of the source; keys begin with `class` where there is one. Class tars inside it
    /// are read by up to `threads` threads.
    pub(super) fn read(
        path: &SourceFile,
        number: u32,
        class: Option<String>,
        threads: usize,
        columns: Columns<'_>,
        cancel: Cancel<'_>,
    ) -> Result<Index, Problem> {
        let file = path.open()?;
        let region = 0..file.len()?;
        let prefix = class.as_ref().map_or_else(String::new, |class| format!("{class}/"));
        let mut reading = Reading::new(&file, number, file_key(path), prefix, columns, cancel);
        reading.scan(region);
        let Reading { found, gaps, inner, mut inner_found, .. } = reading;
        let by_class = !inner.is_empty() || !inner_found.is_empty();
        inner_found.extend(in_parallel(&inner, threads, |tar| tar.read(&file, number, columns, cancel).found));
        if cancel.is_set() {
            return Ok(Index::default());
        }
        let Found { table, mut folders, mut sidecars, mut links, mut ignored } = found;
        let mut index = Index { table, by_class, ..Index::default() };
        if by_class {
            index.drop_rows(&gaps);
        }
        folders.extend(class);
        for found in inner_found {
            index.table.append(found.table);
            folders.extend(found.folders);
            sidecars.extend(found.sidecars);
            links.extend(found.links);
            ignored += found.ignored;
        }
        index.folders = folders;
        index.resolve(links, number);
        let joined = index.sidecars.join(&mut index.table, &file, &sidecars, columns);
        index.ignored = ignored + joined.map_err(Problem::Samples)?;
        Ok(index)
    }

    pub(super) fn append(&mut self, other: Index) {
        self.sidecars.append(other.sidecars, self.table.len());
        self.table.append(other.table);
        self.folders.extend(other.folders);
        self.by_class |= other.by_class;
        self.ignored += other.ignored;
    }

    /// Gives hard links the position of the member that they lead to.
    fn resolve(&mut self, links: Vec<Link>, file: u32) {
        if links.is_empty() {
            return;
        }
        let rows = 0..self.table.len();
        let targets: HashMap<String, usize> = rows.map(|row| (self.table.key(row).to_owned(), row)).collect();
        for Link { key, target, header } in links {
            match targets.get(&target).filter(|row| self.table.broken(**row).is_none()) {
                Some(&row) => self.table.push(&key, -1, self.table.place(row)),
                None => {
                    let reason = format!("a hard link to '{target}', which the archive does not hold");
                    self.table.push_broken(&key, Place { file, at: header, length: 0 }, reason);
                }
            }
        }
    }

    /// Forgets images found after damage in a tar of tars: they belong to a class tar whose name was lost.
    fn drop_rows(&mut self, gaps: &[Range<usize>]) {
        if gaps.iter().all(Range::is_empty) {
            return;
        }
        let in_gap = |row: &usize| {
            let gap = gaps.partition_point(|gap| gap.end <= *row);
            gaps.get(gap).is_some_and(|gap| gap.contains(row))
        };
        let lost = |row: &usize| in_gap(row) && self.table.broken(*row).is_none();
        let kept = (0..self.table.len()).filter(|row| !lost(row));
        self.table = self.table.gather(kept, |_, key| key);
    }

    /// The source at `root`: rows sorted, labels and classes decided.
    ///
    /// # Errors
    /// Labels of two kinds; several splits in one source.
    pub(super) fn finish(self, root: &Path, paths: Vec<SourceFile>) -> Result<Contents, IngestError> {
        let kind = match (self.sidecars.has_samples, self.by_class, paths.len()) {
            (true, ..) => "WebDataset",
            (_, true, _) => "tar of class tars",
            (.., 1) => "tar archive",
            _ => "tar shards",
        };
        let mut labelled = self.table;
        let names = self.sidecars.labels.apply(&mut labelled);
        let names = names.map_err(|problem| IngestError::Samples { path: root.to_owned(), problem })?;
        let keeps_folders = self.sidecars.has_label_files || self.by_class;
        let prefix = if keeps_folders { String::new() } else { common_folders(&labelled) };
        let (mut table, renamed) = labelled.sorted(&prefix);
        let mut notes = self.sidecars.notes();
        let classes = match names {
            Some(names) => names,
            None if self.sidecars.labels.any() => classes_by_label(&table),
            None => {
                let below = self.folders.iter().filter_map(|folder| folder.strip_prefix(&prefix));
                let named: BTreeSet<&str> = below.map(first_folder).filter(|folder| !folder.is_empty()).collect();
                // The tar of a class is one, also where damage took its images.
                let classes = label_by_folder(&mut table, named.iter().copied().filter(|_| self.by_class));
                let folders = class_folders(&table, &classes);
                let is_empty = |name: &&str| classes.binary_search_by(|class| class.as_str().cmp(name)).is_err();
                let empty: Vec<&str> = named.into_iter().filter(is_empty).collect();
                if let Some(splits) = splits::find(&folders) {
                    return Err(IngestError::SplitContainers { path: root.to_owned(), splits, example: None });
                }
                notes.extend(doubts(&folders, &empty));
                classes
            }
        };
        let store = Store::Tar(FileSet::new(paths));
        Ok(Contents { table, classes, kind, ignored: self.ignored, renamed, notes, store, ..Contents::new(root) })
    }
}

fn first_folder(folder: &str) -> &str {
    folder.split_once('/').map_or(folder, |(first, _)| first)
}

/// Folders around the whole set of class folders, with a `/` at the end: as in a tar of the folder `train`.
fn common_folders(table: &Table) -> String {
    let mut prefix = String::new();
    let is_image = |row: &usize| table.broken(*row).is_none();
    let images = || (0..table.len()).filter(is_image).map(|row| table.key(row));
    while let Some(first) = images().next() {
        let Some((folder, _)) = first[prefix.len()..].split_once('/') else { break };
        let longer = format!("{prefix}{folder}/");
        if !images().all(|key| key.strip_prefix(&longer).is_some_and(|rest| rest.contains('/'))) {
            break;
        }
        prefix = longer;
    }
    prefix
}
