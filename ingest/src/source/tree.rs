//! Folders: with class folders in them, or flat.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::containers::{are_splits, is_container_name};
use super::keys::{is_hidden, key_part};
use super::select::Collector;
use super::{Contents, SourceOptions, is_image_name};
use crate::error::IngestError;

/// Folders deeper than this are a mistake.
const MAX_DEPTH: usize = 64;

/// What a folder is.
pub(super) enum Tree {
    /// A folder of images, or of nothing.
    Images(Box<Contents>),
    /// A folder of these containers and no images.
    Containers(Vec<PathBuf>),
}

pub(super) fn open(root: &Path, options: &SourceOptions) -> Result<Tree, IngestError> {
    let listing = Listing::read(root)?;
    let classes: Vec<String> = listing.folders().map(|entry| entry.part.clone()).collect();
    let mut walk =
        Walk { collector: Collector::new(options), containers: Vec::new(), below: None, nested: false, in_classes: 0 };
    let top = Place { folder: root.to_owned(), key: String::new(), odd: None, depth: 0 };
    let mut next_class = 0;
    for entry in &listing.entries {
        if walk.collector.is_full() {
            break;
        }
        if entry.is_folder {
            let class = next_class;
            next_class += 1;
            if entry.leads_back(root) {
                continue;
            }
            let before = walk.seen();
            walk.folder(&top.enter(entry), class)?;
            walk.in_classes += walk.seen() - before;
        } else {
            walk.file(&top, entry, -1);
        }
    }
    let has_classes = walk.in_classes > 0 || (walk.collector.is_full() && !classes.is_empty());
    if has_classes && walk.nested && are_splits(&classes) {
        return Err(IngestError::SplitFolder { path: root.to_owned(), splits: classes });
    }
    if walk.seen() == 0 && !walk.containers.is_empty() {
        return Ok(Tree::Containers(walk.containers));
    }
    if let (0, Some(folder)) = (walk.seen(), walk.below) {
        return Err(IngestError::ContainersBelow { path: root.to_owned(), folder });
    }
    let (kind, classes) = if has_classes { ("class folders", classes) } else { ("flat folder", Vec::new()) };
    Ok(Tree::Images(Box::new(walk.collector.finish(root, kind, classes))))
}

/// A folder or file in a folder.
struct Entry {
    name: OsString,
    path: PathBuf,
    /// The name as a part of keys, and whether it differs from the name.
    part: String,
    odd: bool,
    is_folder: bool,
    is_link: bool,
}

impl Entry {
    /// Whether this is a link to a folder that contains it, which would be walked forever.
    fn leads_back(&self, parent: &Path) -> bool {
        let resolve = |path: &Path| fs::canonicalize(path);
        self.is_link
            && matches!((resolve(&self.path), resolve(parent)), (Ok(target), Ok(parent)) if parent.starts_with(&target))
    }
}

/// What a folder holds, without what is hidden, by name in byte order.
struct Listing {
    entries: Vec<Entry>,
}

impl Listing {
    fn read(folder: &Path) -> Result<Listing, IngestError> {
        let unreadable = |source| IngestError::Unreadable { path: folder.to_owned(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if !is_hidden(entry.file_name().as_encoded_bytes())
                && let Some(entry) = classify(&entry)
            {
                entries.push(entry);
            }
        }
        entries.sort_unstable_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        let mut listing = Listing { entries };
        listing.make_parts_unique();
        Ok(listing)
    }

    fn folders(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_folder)
    }

    /// An escaped name may be the plain name of another file.
    fn make_parts_unique(&mut self) {
        if self.entries.iter().all(|entry| !entry.odd) {
            return;
        }
        let mut taken: HashSet<String> = self.entries.iter().filter(|e| !e.odd).map(|e| e.part.clone()).collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.odd) {
            while !taken.insert(entry.part.clone()) {
                entry.part.push('~');
            }
        }
    }
}

/// What an entry is, links followed. `None` for what is neither a folder nor a file: pipes, sockets, devices, and links
/// that lead nowhere, unless they are named like images: those are listed, and found bad when they are read.
fn classify(entry: &fs::DirEntry) -> Option<Entry> {
    let (name, path) = (entry.file_name(), entry.path());
    let own = entry.file_type().ok()?;
    let is_link = own.is_symlink();
    let (is_folder, is_file) = if is_link {
        path.metadata().map_or((false, is_image_name(&path)), |m| (m.is_dir(), m.is_file()))
    } else {
        (own.is_dir(), own.is_file())
    };
    let (part, odd) = key_part(&name);
    (is_folder || is_file).then_some(Entry { name, path, part, odd, is_folder, is_link })
}

/// A folder on the way down.
struct Place {
    folder: PathBuf,
    /// Key of the folder, with a `/` at its end unless it is the root.
    key: String,
    /// The folder's path relative to the root, where that is not its key.
    odd: Option<PathBuf>,
    depth: usize,
}

impl Place {
    fn enter(&self, entry: &Entry) -> Place {
        let key = format!("{}{}/", self.key, entry.part);
        Place { folder: entry.path.clone(), key, odd: self.odd_path(entry), depth: self.depth + 1 }
    }

    /// The entry's path relative to the root, where that is not its key.
    fn odd_path(&self, entry: &Entry) -> Option<PathBuf> {
        let folder = || self.odd.clone().unwrap_or_else(|| PathBuf::from(&self.key));
        (entry.odd || self.odd.is_some()).then(|| folder().join(&entry.name))
    }
}

struct Walk<'a> {
    collector: Collector<'a>,
    /// Tars and Parquet files in the folder itself, by name, and the first folder below it that holds one.
    containers: Vec<PathBuf>,
    below: Option<PathBuf>,
    /// Whether images were seen two or more folders down.
    nested: bool,
    /// Images seen inside class folders.
    in_classes: usize,
}

impl Walk<'_> {
    /// Images seen, excluded ones included.
    fn seen(&self) -> usize {
        self.collector.table.len() + self.collector.excluded
    }

    fn folder(&mut self, place: &Place, label: i32) -> Result<(), IngestError> {
        if place.depth > MAX_DEPTH {
            self.collector.ignored += 1;
            return Ok(());
        }
        for entry in &Listing::read(&place.folder)?.entries {
            if self.collector.is_full() {
                return Ok(());
            }
            if !entry.is_folder {
                self.file(place, entry, label);
            } else if !entry.leads_back(&place.folder) {
                self.folder(&place.enter(entry), label)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, place: &Place, entry: &Entry, label: i32) {
        if is_image_name(&entry.path) {
            self.nested |= place.depth >= 2;
            self.collector.add(&format!("{}{}", place.key, entry.part), place.odd_path(entry), label);
            return;
        }
        self.collector.ignored += 1;
        if is_container_name(&entry.path) {
            if place.depth == 0 {
                self.containers.push(entry.path.clone());
            } else {
                self.below.get_or_insert_with(|| place.folder.clone());
            }
        }
    }
}
