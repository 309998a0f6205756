//! Folders: with class folders in them, or flat.

use super::cancel::Cancel;
use super::classes::{ClassFolder, doubts};
use super::containers::is_container_name;
use super::keys::{is_hidden, key_part};
use super::links::Links;
use super::select::Collector;
use super::text::count;
use super::{Contents, SourceOptions, is_image_name, splits};
use crate::error::IngestError;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders deeper than this are a mistake.
const MAX_DEPTH: usize = 64;

/// What a folder is.
pub(super) enum Tree {
    /// A folder of images, or of nothing.
    Images(Box<Contents>),
    /// A folder of these containers and no images.
    Containers(Vec<PathBuf>),
}

pub(super) fn open(root: &Path, options: &SourceOptions, cancel: Cancel<'_>) -> Result<Tree, IngestError> {
    let top = Folder { path: root.to_owned(), key: String::new(), odd: None, depth: 0, behind_link: false };
    let mut walk = Walk::new(root, options, cancel);
    let entries = walk.list(&top)?;
    let (mut classes, mut empty) = (Vec::new(), Vec::new());
    for entry in &entries {
        if walk.collector.is_full() {
            // Folders beyond a limit are not examined, and count as classes.
            classes.extend(entry.is_folder.then(|| ClassFolder::with_images(entry.part())));
        } else if entry.is_folder {
            walk.class = ClassFolder::new(entry.part());
            walk.folder(&top.enter(entry), classes.len() as i32)?;
            let folders = if walk.class.has_images() { &mut classes } else { &mut empty };
            folders.push(walk.class.clone());
        } else {
            walk.file(&top, entry, -1);
        }
    }
    let is_whole = !walk.collector.is_full();
    let all: Vec<ClassFolder> = classes.iter().chain(&empty).cloned().collect();
    if let Some(splits) = splits::find(&all) {
        return Err(IngestError::SplitFolder { path: root.to_owned(), splits });
    }
    if walk.seen() == 0 && !walk.containers.is_empty() {
        return Ok(Tree::Containers(walk.containers));
    }
    if let (0, Some(folder)) = (walk.seen(), walk.below) {
        return Err(IngestError::ContainersBelow { path: root.to_owned(), folder });
    }
    let kind = if classes.is_empty() { "flat folder" } else { "class folders" };
    let empty: Vec<&str> = empty.iter().map(|folder| folder.name.as_str()).collect();
    let mut notes = if is_whole { doubts(&classes, &empty) } else { Vec::new() };
    if walk.links.skipped > 0 {
        let links = count(walk.links.skipped, "link");
        notes.push(format!("{links} to folders that are walked elsewhere: each folder counts once"));
    }
    let names = classes.into_iter().map(|class| class.name).collect();
    let linked = std::mem::take(&mut walk.links.targets);
    Ok(Tree::Images(Box::new(Contents { notes, linked, ..walk.collector.finish(root, kind, names) })))
}

/// A folder or file in a folder.
///
/// Small, since a flat folder may hold millions of them.
struct Entry {
    name: OsString,
    /// The name as a part of keys, where it differs from the name.
    odd_part: Option<Box<str>>,
    is_folder: bool,
    is_link: bool,
}

impl Entry {
    /// The name as a part of keys.
    fn part(&self) -> &str {
        // What is not UTF-8 has an odd part.
        self.odd_part.as_deref().or(self.name.to_str()).unwrap_or_default()
    }
}

/// What a folder holds, without what is hidden, by name in byte order.
fn list(folder: &Path, cancel: Cancel<'_>) -> Result<Vec<Entry>, IngestError> {
    let unreadable = |source| IngestError::Unreadable { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        cancel.check()?;
        let entry = entry.map_err(unreadable)?;
        if !is_hidden(entry.file_name().as_encoded_bytes())
            && let Some(entry) = classify(&entry)
        {
            cancel.count(u64::from(!entry.is_folder && is_image_name(Path::new(&entry.name))));
            entries.push(entry);
        }
    }
    entries.sort_unstable_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
    make_parts_unique(&mut entries);
    Ok(entries)
}

/// An escaped name may be the plain name of another file.
fn make_parts_unique(entries: &mut [Entry]) {
    if entries.iter().all(|entry| entry.odd_part.is_none()) {
        return;
    }
    let plain = entries.iter().filter(|entry| entry.odd_part.is_none());
    let mut taken: HashSet<String> = plain.map(|entry| entry.part().to_owned()).collect();
    for part in entries.iter_mut().filter_map(|entry| entry.odd_part.as_mut()) {
        let first = part.clone();
        let mut copy = 1;
        while !taken.insert(part.to_string()) {
            copy += 1;
            *part = format!("{first}~{copy}").into();
        }
    }
}

/// What an entry is, links followed. `None` for what is neither a folder nor a file: pipes, sockets, devices, and links
/// that lead nowhere, unless they are named like images: those are listed, and found bad when they are read.
fn classify(entry: &fs::DirEntry) -> Option<Entry> {
    let name = entry.file_name();
    let own = entry.file_type().ok()?;
    let is_link = own.is_symlink();
    let (is_folder, is_file) = if is_link {
        let path = entry.path();
        path.metadata().map_or((false, is_image_name(&path)), |m| (m.is_dir(), m.is_file()))
    } else {
        (own.is_dir(), own.is_file())
    };
    let (part, odd) = key_part(&name);
    let odd_part = odd.then(|| part.into_boxed_str());
    (is_folder || is_file).then_some(Entry { name, odd_part, is_folder, is_link })
}

/// A folder on the current path.
struct Folder {
    path: PathBuf,
    /// Key of the folder, with a `/` at its end unless it is the root.
    key: String,
    /// The folder's path relative to the root, where that is not its key.
    odd: Option<PathBuf>,
    depth: usize,
    /// Whether a link led here.
    behind_link: bool,
}

impl Folder {
    fn enter(&self, entry: &Entry) -> Folder {
        Folder {
            path: self.path.join(&entry.name),
            key: format!("{}{}/", self.key, entry.part()),
            odd: self.odd_path(entry),
            depth: self.depth + 1,
            behind_link: self.behind_link || entry.is_link,
        }
    }

    /// The entry's path relative to the root, where that is not its key.
    fn odd_path(&self, entry: &Entry) -> Option<PathBuf> {
        let folder = || self.odd.clone().unwrap_or_else(|| PathBuf::from(&self.key));
        (entry.odd_part.is_some() || self.odd.is_some()).then(|| folder().join(&entry.name))
    }
}

struct Walk<'a> {
    collector: Collector<'a>,
    links: Links,
    cancel: Cancel<'a>,
    /// Tars and Parquet files in the folder itself, by name, and the first folder below it that holds one.
    containers: Vec<PathBuf>,
    below: Option<PathBuf>,
    /// The class folder that is walked.
    class: ClassFolder,
}

impl<'a> Walk<'a> {
    fn new(root: &Path, options: &'a SourceOptions, cancel: Cancel<'a>) -> Walk<'a> {
        Walk {
            collector: Collector::new(options),
            links: Links::new(root),
            cancel,
            containers: Vec::new(),
            below: None,
            class: ClassFolder::new(""),
        }
    }

    /// Images seen, excluded ones included.
    fn seen(&self) -> usize {
        self.collector.table.len() + self.collector.excluded
    }

    /// What a folder holds. Its folders are taken before any of them is walked: what lies highest counts.
    fn list(&mut self, folder: &Folder) -> Result<Vec<Entry>, IngestError> {
        let mut entries = list(&folder.path, self.cancel)?;
        entries.retain(|entry| match (entry.is_folder, entry.is_link) {
            (false, _) => true,
            (true, true) => self.links.take_link(&folder.path.join(&entry.name), &folder.path),
            (true, false) => !folder.behind_link || self.links.take(&folder.path.join(&entry.name)),
        });
        Ok(entries)
    }

    fn folder(&mut self, folder: &Folder, label: i32) -> Result<(), IngestError> {
        if folder.depth > MAX_DEPTH {
            self.collector.ignored += 1;
            return Ok(());
        }
        for entry in &self.list(folder)? {
            if self.collector.is_full() {
                return Ok(());
            }
            if entry.is_folder {
                self.folder(&folder.enter(entry), label)?;
            } else {
                self.file(folder, entry, label);
            }
        }
        Ok(())
    }

    fn file(&mut self, folder: &Folder, entry: &Entry, label: i32) {
        if is_image_name(Path::new(&entry.name)) {
            let key = format!("{}{}", folder.key, entry.part());
            if let Some((_, path)) = key.split_once('/') {
                self.class.add_image(path);
            }
            self.collector.add(&key, folder.odd_path(entry), label);
            return;
        }
        self.collector.ignored += 1;
        if is_container_name(Path::new(&entry.name)) {
            if folder.depth == 0 {
                self.containers.push(folder.path.join(&entry.name));
            } else {
                self.below.get_or_insert_with(|| folder.path.clone());
            }
        }
    }
}
