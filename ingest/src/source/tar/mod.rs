//! Tars: a tar of class tars as ImageNet's training set comes, a tar of images with or without class folders, and
//! WebDataset shards.
//!
//! Headers are walked through once (module `scan`), which tells where every image lies; images are then read by position,
//! from any number of threads. Nothing is unpacked: an image inside a tar inside a tar has a position in the outer file.
//! Several tars, or the class tars of one, are walked through at once.

mod header;
mod pax;
mod runs;
mod samples;
mod scan;
mod sidecars;

use super::cancel::Cancel;
use super::classes::{class_folders, classes_by_label, doubts, label_by_folder};
use super::files::{FileSet, SourceFile, max_open_files};
use super::imagenet::is_wnid;
use super::keys::{MemberName, file_name, key_part, member_name};
use super::options::Columns;
use super::parallel::{THREADS, in_parallel};
use super::table::{Place, Table};
use super::text::count;
use super::{Contents, Store, has_extension, is_image_name, splits};
use crate::error::IngestError;
use header::BLOCK;
use scan::{END, Entry, scan};
use sidecars::{Sidecar, Sidecars, is_label_file};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use tokengrid_store::Blob;

/// Indexes the tars at `paths`, which together are the source at `root`.
pub(super) fn open(
    root: &Path,
    paths: Vec<SourceFile>,
    columns: Columns<'_>,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let by_class = are_class_tars(root, &paths)?;
    // Many tars at once, or many class tars of the only one.
    let threads = if paths.len() == 1 { THREADS } else { 1 };
    let files: Vec<(u32, &SourceFile)> = (0..).zip(&paths).collect();
    let indices = in_parallel(&files, THREADS.min(max_open_files()), |(number, path)| {
        let class = class_of_tar(path).filter(|_| by_class);
        Index::read(path, *number, class, threads, columns, cancel)
    });
    cancel.check()?;
    let mut all = Index { by_class, ..Index::default() };
    for ((number, path), index) in files.into_iter().zip(indices) {
        match index {
            Ok(index) => all.append(index),
            Err(Problem::Samples(problem)) => return Err(IngestError::Samples { path: path.to_path_buf(), problem }),
            Err(Problem::Io(source)) if paths.len() == 1 => {
                return Err(IngestError::Unreadable { path: path.to_path_buf(), source });
            }
            Err(Problem::Io(source)) => {
                let place = Place { file: number, ..Place::default() };
                all.table.push_broken(&name_of(path), place, format!("cannot be read: {source}"));
            }
        }
    }
    let refuse = |problem| IngestError::Samples { path: root.to_owned(), problem };
    all.sidecars.check_wanted(columns).map_err(refuse)?;
    all.finish(root, paths)
}

/// Whether tars are named after classes: all of them, or none. One between class tars that is not a class would take the labels
/// from all of them.
fn are_class_tars(root: &Path, paths: &[SourceFile]) -> Result<bool, IngestError> {
    let (classes, others): (Vec<_>, Vec<_>) = paths.iter().partition(|path| class_of_tar(path).is_some());
    if let (Some(class), Some(other)) = (classes.first(), others.first()) {
        let number = count(others.len(), "tar");
        let problem = format!(
            "'{}' is named after a class, but '{}' is not ({number} in all): move what is no class elsewhere, or name it after \
             its class",
            name_of(class),
            name_of(other)
        );
        return Err(IngestError::Samples { path: root.to_owned(), problem });
    }
    Ok(!classes.is_empty())
}

/// Why a tar gives nothing.
enum Problem {
    Io(io::Error),
    /// Samples that are ambiguous, or labels that are none.
    Samples(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

/// The class that a tar is named after: `n01440764.tar`.
fn class_of_tar(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    is_wnid(stem).then(|| stem.to_owned())
}

/// A file's name as it appears in keys of broken places.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| key_part(name).0)
}

/// What tars hold, in the order in which it was found.
#[derive(Default)]
struct Index {
    table: Table,
    /// Keys of folders that have members of their own.
    folders: BTreeSet<String>,
    sidecars: Sidecars,
    /// Whether images are in tars named after their class.
    by_class: bool,
    ignored: usize,
}

impl Index {
    /// Reads the tar at `path`, file number `number` of the source; keys begin with `class` where there is one.
    fn read(
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
        let mut reading = Reading::new(&file, number, name_of(path), prefix, columns, cancel);
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

    fn append(&mut self, other: Index) {
        self.sidecars.append(other.sidecars, self.table.len());
        self.table.append(other.table);
        self.folders.extend(other.folders);
        self.by_class |= other.by_class;
        self.ignored += other.ignored;
    }

    /// Gives hard links the place of what they lead to.
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

    /// Forgets images found behind damage in a tar of tars: they belong to a class tar whose name was lost.
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

    fn finish(self, root: &Path, paths: Vec<SourceFile>) -> Result<Contents, IngestError> {
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
    let images = || (0..table.len()).filter(|&row| table.broken(row).is_none()).map(|row| table.key(row));
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

/// A hard link, by keys.
struct Link {
    key: String,
    target: String,
    header: u64,
}

/// What was found in one tar, the tars inside it left out.
#[derive(Default)]
struct Found {
    table: Table,
    folders: BTreeSet<String>,
    sidecars: Vec<Sidecar>,
    links: Vec<Link>,
    ignored: usize,
}

/// A tar in a tar, named after its class.
struct ClassTar {
    container: String,
    prefix: String,
    region: Range<u64>,
    /// Whether it goes beyond the end of the outer tar, as its header has it.
    is_cut: bool,
}

impl ClassTar {
    fn read<'a>(&self, file: &'a Blob, number: u32, columns: Columns<'a>, cancel: Cancel<'a>) -> Reading<'a> {
        let mut reading = Reading::new(file, number, self.container.clone(), self.prefix.clone(), columns, cancel);
        (reading.start, reading.is_inner, reading.is_cut) = (self.region.start, true, self.is_cut);
        reading.scan(self.region.clone());
        reading
    }
}

/// One tar that is walked through.
struct Reading<'a> {
    file: &'a Blob,
    number: u32,
    /// The tar's name, for places in it.
    container: String,
    /// Offset of the tar in the file.
    start: u64,
    /// What keys begin with: the class and a `/`, or nothing.
    prefix: String,
    /// Whether this tar lies in another, and whether it is cut off there.
    is_inner: bool,
    is_cut: bool,
    /// Where the walk met the next class tar, if it was in one that is cut.
    next_tar: Option<u64>,
    found: Found,
    /// Class tars to be read, and what was found in those that had to be read at once.
    inner: Vec<ClassTar>,
    inner_found: Vec<Found>,
    /// Row at which images began whose tar may have lost its name, and rows of which that was so.
    gap: Option<usize>,
    gaps: Vec<Range<usize>>,
    columns: Columns<'a>,
    cancel: Cancel<'a>,
}

impl<'a> Reading<'a> {
    fn new(
        file: &'a Blob,
        number: u32,
        container: String,
        prefix: String,
        columns: Columns<'a>,
        cancel: Cancel<'a>,
    ) -> Reading<'a> {
        Reading {
            columns,
            cancel,
            file,
            number,
            container,
            start: 0,
            prefix,
            is_inner: false,
            is_cut: false,
            next_tar: None,
            found: Found::default(),
            inner: Vec::new(),
            inner_found: Vec::new(),
            gap: None,
            gaps: Vec::new(),
        }
    }

    fn scan(&mut self, region: Range<u64>) {
        let label = self.columns.label;
        scan(self.file, region, self.cancel, &|name| is_label_file(name, label), &mut |entry| self.entry(entry));
        self.close_gap();
    }

    /// Takes an entry, and says where to go on if it is not behind it.
    fn entry(&mut self, entry: Entry<'_>) -> Option<u64> {
        match entry {
            Entry::File { name, at, length, held } => return self.member(name, at, length, held),
            Entry::Overrun { name, header, at, length, available } => {
                return self.overrun(name, header, at..at + available, length);
            }
            Entry::Folder { name } => {
                if let MemberName::Key(key) = member_name(name) {
                    let key = self.key(&key);
                    self.found.folders.insert(key);
                }
            }
            Entry::HardLink { name, target, header } => self.hard_link(name, target, header),
            Entry::Other { name } => {
                if member_name(name) != MemberName::Hidden {
                    self.found.ignored += 1;
                }
            }
            Entry::Broken { at, reason } => self.broken(at, reason),
        }
        None
    }

    fn member(&mut self, name: &[u8], at: u64, length: u64, held: Option<Box<[u8]>>) -> Option<u64> {
        let MemberName::Key(key) = member_name(name) else { return None };
        let path = Path::new(&key);
        let place = Place { file: self.number, length: u32::try_from(length).unwrap_or(u32::MAX), at };
        let is_tar = has_extension(path, &["tar"]);
        if is_image_name(path) {
            let key = self.key(&key);
            self.found.table.push(&key, -1, place);
        } else if is_tar && !self.is_inner {
            self.class_tar(&key, at..at + length, false);
        } else if is_tar && self.is_cut {
            self.next_tar = Some(at - BLOCK);
            return Some(END);
        } else {
            let key = self.key(&key);
            // A folder of other files is one without images, whether it has an entry or not.
            if let Some((folder, _)) = key.rsplit_once('/').filter(|(folder, _)| !self.found.folders.contains(*folder))
            {
                self.found.folders.insert(folder.to_owned());
            }
            self.found.sidecars.push(Sidecar { key, place, held });
        }
        None
    }

    /// A member that the file does not hold all of.
    fn overrun(&mut self, name: &[u8], header: u64, data: Range<u64>, length: u64) -> Option<u64> {
        let MemberName::Key(key) = member_name(name) else {
            self.broken(header, format!("a member of {length} bytes that is cut off"));
            return None;
        };
        let reason = format!("cut off: {} of {length} bytes of '{key}' are there", data.end - data.start);
        if is_image_name(Path::new(&key)) {
            let key = self.key(&key);
            self.found.table.push_broken(&key, self.place(header), reason);
            self.gap.get_or_insert(self.found.table.len());
            return None;
        }
        let is_class_tar = has_extension(Path::new(&key), &["tar"]) && !self.is_inner;
        let next = is_class_tar.then(|| self.class_tar(&key, data, true));
        self.broken(header, reason);
        next
    }

    /// Takes a class tar. Returns where to go on: one that `is_cut` may be followed by others all the same, if it is its size
    /// that is wrong; what was walked through is not walked through again.
    fn class_tar(&mut self, key: &str, region: Range<u64>, is_cut: bool) -> u64 {
        self.close_gap();
        let container = file_name(key).to_owned();
        let class = container.rsplit_once('.').map_or(container.as_str(), |(stem, _)| stem).to_owned();
        let prefix = format!("{class}/");
        self.found.folders.insert(class);
        let end = region.end;
        let tar = ClassTar { container, prefix, region, is_cut };
        if !is_cut {
            self.inner.push(tar);
            return end;
        }
        let reading = tar.read(self.file, self.number, self.columns, self.cancel);
        self.inner_found.push(reading.found);
        reading.next_tar.unwrap_or(end)
    }

    fn hard_link(&mut self, name: &[u8], target: &[u8], header: u64) {
        let (MemberName::Key(key), MemberName::Key(target)) = (member_name(name), member_name(target)) else { return };
        if is_image_name(Path::new(&key)) {
            let (key, target) = (self.key(&key), self.key(&target));
            self.found.links.push(Link { key, target, header });
        } else {
            self.found.ignored += 1;
        }
    }

    /// The key of a member: below its class, which may or may not be a folder inside the class's tar.
    fn key(&self, key: &str) -> String {
        if key.starts_with(&self.prefix) { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }

    fn broken(&mut self, at: u64, reason: String) {
        let key = format!("{}@{}", self.container, at - self.start);
        self.found.table.push_broken(&key, self.place(at), reason);
        self.gap.get_or_insert(self.found.table.len());
    }

    fn place(&self, at: u64) -> Place {
        Place { file: self.number, length: 0, at }
    }

    fn close_gap(&mut self) {
        self.gaps.extend(self.gap.take().map(|start| start..self.found.table.len()));
    }
}
