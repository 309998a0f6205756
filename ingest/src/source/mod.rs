//! What a path holds: images by position, each with a key, a label and its bytes.
//!
//! A source is recognised by itself (module `containers`):
//!
//! | source | module | key of an image | label |
//! |---|---|---|---|
//! | class folders, flat folder | `tree` | path below the folder | rank of the class folder, else -1 |
//! | `.txt` list | `list` | path as listed | as listed, else -1 |
//! | tar of class tars (`ILSVRC2012_img_train.tar`), folder of `n01440764.tar`, ... | `tar` | class, `/`, member name | rank of the class tar |
//! | tar with or without class folders, shards of it | `tar` | member name | rank of the class folder, else -1 |
//! | WebDataset shards | `tar` | the image's own name in `.json`, else member name | `.cls`, else `label` or `cls` in `.json`, else as above |
//! | Parquet, one file or many | `parquet` | `image.path` | `label` |
//!
//! **The same images give the same rows in the same order in every container**: keys are made to agree where a container
//! carries the name (module `imagenet` has the rules), and rows are sorted by key, folder by folder, as a walk through class
//! folders meets them. A file list alone keeps its own order. Where a container holds a key twice, the first (by file, then
//! by position) keeps it and the others become `key~2`, `key~3`, and so on: [`Source::renamed`].
//!
//! **Damage is an item.** A place of a container that cannot be read is a row like an image, with a key that names the place
//! (`n01440764.tar@1536`: that tar, from byte 1536) and a [`Source::read`] that says why it fails. So what was given always
//! equals what was read, what was not, and what was excluded.
//!
//! **Memory.** A row takes its key, 8 bytes for the key's end, 4 for the label, and 16 for the place in a container; nothing
//! grows with the bytes of the images. Opening reads names and headers; images are read by position, without a shared file
//! offset and, except for pages of Parquet files, without a lock.

mod cancel;
mod classes;
mod containers;
mod files;
mod imagenet;
mod keys;
mod label_names;
mod labels;
mod links;
mod list;
mod options;
mod parallel;
mod parquet;
mod pattern;
mod remote;
mod select;
mod splits;
mod table;
mod tar;
mod text;
mod tree;

use crate::error::IngestError;
use cancel::Cancel;
use files::{FileSet, read_file, too_large};
pub use imagenet::OPEN_MAGVIT2_EXCLUDE;
pub use links::lies_in;
pub use options::SourceOptions;
use remote::{Ahead, Objects};
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use table::Table;
pub(crate) use text::count;

/// Largest image that [`Source::read`] reads, in bytes. Beyond what any picture within the pixel limit needs in practice.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// File name endings of images, in lower case. The format is recognised by the contents when a file is decoded.
const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// The images under a path, in a fixed order: by class, then by name, compared as bytes, folder by folder.
///
/// Opening lists names only; images are read on request. Share it between threads in an `Arc`.
#[derive(Debug)]
pub struct Source {
    contents: Contents,
    excluded: usize,
}

/// What is at a path, before anything is left out.
#[derive(Debug)]
struct Contents {
    root: PathBuf,
    kind: &'static str,
    table: Table,
    classes: Vec<String>,
    excluded: usize,
    /// Those of [`SourceOptions::exclude`] that some of them had.
    named: HashSet<String>,
    ignored: usize,
    renamed: usize,
    /// Messages about contents that may be a mistake.
    notes: Vec<String>,
    /// Folders elsewhere that links in the source lead to, with links resolved.
    linked: Vec<PathBuf>,
    store: Store,
    ahead: Ahead,
}

impl Contents {
    fn new(root: &Path) -> Contents {
        Contents {
            root: root.to_owned(),
            kind: "",
            table: Table::default(),
            classes: Vec::new(),
            excluded: 0,
            named: HashSet::new(),
            ignored: 0,
            renamed: 0,
            notes: Vec::new(),
            linked: Vec::new(),
            store: Store::Folder,
            ahead: Ahead::default(),
        }
    }
}

/// Where the bytes of images come from.
#[derive(Debug)]
enum Store {
    /// Files below the root.
    Folder,
    /// Objects, one per image.
    Objects(Objects),
    Tar(FileSet),
    Parquet(parquet::Store),
}

impl Source {
    /// Recognises and lists what is at `path`:
    ///
    /// - a folder whose sub-folders hold images: class folders. The class index is the rank of the first folder name below
    ///   `path` among all of them, in byte order; folders inside a class belong to it. Images beside the class folders have
    ///   the label -1;
    /// - a folder with images only: flat, every label is -1;
    /// - a `.txt` file: one path per line, absolute or relative to the list's folder, optionally followed by a tab and an
    ///   integer label (or by white space and an integer at the end of the line);
    /// - a tar: of class tars, with class folders, flat, or of WebDataset samples. Compressed ones are refused;
    /// - a Parquet file with a column `image` of `bytes` and `path`, and perhaps `label`;
    /// - a folder of tars or Parquet files, or a pattern of them such as `shards/{000..099}.tar`.
    ///
    /// Names are images by their ending (jpg, jpeg, png, webp, gif, bmp, in any case). Hidden files and folders and those of
    /// systems (`lost+found`, `__MACOSX`, `@eaDir`) are passed over. Symbolic links are followed, but each folder is walked
    /// once; links inside a tar are not.
    ///
    /// # Errors
    /// [`IngestError`], one line that names the path and what to do: nothing there, nothing readable, no images, a list or
    /// pattern that names missing files, several splits in one, a compressed container, labels that are not classes, samples
    /// whose picture or label is ambiguous, a label file that cannot be used. Damage inside a container is not an error as long
    /// as some of it can be read.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Source, IngestError> {
        Source::open_until(path, options, &AtomicBool::new(false))
    }

    /// The same, until `cancel` is set: listing millions of files takes minutes.
    ///
    /// # Errors
    /// Those of [`Source::open`], and [`IngestError::Cancelled`].
    pub fn open_until(path: &Path, options: &SourceOptions, cancel: &AtomicBool) -> Result<Source, IngestError> {
        Source::open_watched(path, options, cancel, &AtomicU64::new(0))
    }

    /// The same; `listed` counts the images that were found so far, excluded ones included, for another thread to show. What
    /// an object store lists is not counted.
    ///
    /// # Errors
    /// Those of [`Source::open_until`].
    pub fn open_watched(
        path: &Path,
        options: &SourceOptions,
        cancel: &AtomicBool,
        listed: &AtomicU64,
    ) -> Result<Source, IngestError> {
        // Labels are matched to all images; exclusions apply afterwards.
        let all = SourceOptions { exclude: Vec::new(), limit: None, ..options.clone() };
        let listing = if options.labels.is_some() { &all } else { options };
        tokengrid_store::forget_outage();
        let mut contents = containers::open(path, listing, Cancel::new(cancel, listed))?;
        check_reachable()?;
        if let Store::Parquet(store) = &mut contents.store {
            store.whole_pages = options.whole_pages;
        }
        if let Some(file) = &options.labels {
            labels::apply(file, &mut contents)?;
        }
        contents.select(options).check_not_empty(path, options)
    }

    /// One image alone, whatever its file is called; its key is the file's name. Nothing is read yet.
    pub fn of_image(path: &Path) -> Source {
        let mut contents = Contents::new(path.parent().unwrap_or(Path::new("")));
        contents.kind = "image";
        let name = Path::new(path.file_name().unwrap_or(path.as_os_str()));
        contents.table.push_file(&keys::file_key(name), Some(name.to_owned()), -1);
        Source { contents, excluded: 0 }
    }

    fn check_not_empty(self, path: &Path, options: &SourceOptions) -> Result<Source, IngestError> {
        let path = path.to_owned();
        match (self.len(), self.excluded) {
            (1.., _) => Ok(self),
            (0, _) if options.limit == Some(0) => Ok(self),
            (0, 0) if self.kind() == "file list" => Err(IngestError::NoRows { path, what: "the list has no lines" }),
            (0, 0) if self.kind() == "Parquet" => {
                Err(IngestError::NoRows { path, what: "the Parquet files have no rows" })
            }
            (0, 0) => Err(IngestError::Empty { path, ignored: self.ignored() }),
            (0, excluded) => Err(IngestError::AllExcluded { path, excluded }),
        }
    }

    /// Number of images, and of places of a container that cannot be read.
    #[allow(clippy::len_without_is_empty, reason = "a source without images is an error of `open`")]
    pub fn len(&self) -> usize {
        self.contents.table.len()
    }

    /// The image's name: its path relative to the root, with `/` between the parts, or what the container calls it. The same
    /// image has the same key wherever the data set lies, in every container. Keys of one source differ from each other,
    /// lead nowhere else (no `..`, nothing absolute) and are free of control characters.
    ///
    /// Control characters and bytes of a file name that are not UTF-8 appear as `%XX`; should that be the name of another
    /// file in the folder, it becomes `name~2`, `name~3`, and so on.
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn key(&self, index: usize) -> &str {
        self.contents.table.key(index)
    }

    /// The image's class index, -1 if unknown.
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn label(&self, index: usize) -> i32 {
        self.contents.table.label(index)
    }

    /// Class names by class index: names of class folders (wnids), or those in a Parquet file. Empty where they are
    /// not known; an empty name where a single one is not.
    pub fn classes(&self) -> &[String] {
        &self.contents.classes
    }

    /// Reads the image's file into `into`, whose contents are replaced and whose memory is reused.
    ///
    /// # Errors
    /// What the operating system says; also for a file that is not a regular file or is larger than [`MAX_FILE_BYTES`], and
    /// for what is damaged in a container.
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn read(&self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        self.read_after(index, into, &mut |_| ())
    }

    /// [`Source::read`]; `before` is called with the length of a file before memory is taken for it. An image of a Parquet file is in
    /// memory already, with its page.
    pub(crate) fn read_after(&self, index: usize, into: &mut Vec<u8>, before: &mut dyn FnMut(u64)) -> io::Result<()> {
        into.clear();
        let table = &self.contents.table;
        if let Some(reason) = table.broken(index) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if let Some(fetch) = self.contents.ahead.take(index) {
            let bytes = fetch.wait()?;
            before(bytes.len() as u64);
            into.extend_from_slice(&bytes);
            return Ok(());
        }
        match &self.contents.store {
            Store::Objects(objects) => objects.read(table.place(index).at, into, before),
            Store::Folder => read_file(&self.contents.root.join(table.relative_path(index)), into, before),
            Store::Tar(files) => {
                let place = table.place(index);
                if u64::from(place.length) > MAX_FILE_BYTES {
                    return Err(too_large());
                }
                before(u64::from(place.length));
                files.read(place.file, place.at, place.length as usize, into)
            }
            Store::Parquet(store) => store.read(table.place(index), into),
        }
    }

    /// Whether reads have failed since the source was opened for a reason that does not lie in the images: an outage of an object
    /// store. Images that are bad since then may be good.
    ///
    /// # Errors
    /// [`IngestError::Outage`]; [`IngestError::Cancelled`] when they failed because the program is to stop.
    pub fn check_reachable(&self) -> Result<(), IngestError> {
        check_reachable()
    }

    /// Whether images come from a bucket or a web server each time that they are read.
    pub(crate) fn is_remote(&self) -> bool {
        match &self.contents.store {
            Store::Objects(_) => true,
            Store::Tar(files) => files.is_remote(),
            Store::Folder | Store::Parquet(_) => false,
        }
    }

    /// Begins to read an image for a later [`Source::read`]. Returns the bytes that it will take, as far as they are known;
    /// `None` where nothing is read ahead.
    pub(crate) fn fetch_ahead(&self, index: usize) -> Option<Option<u64>> {
        if index >= self.len() || self.contents.table.broken(index).is_some() {
            return None;
        }
        let place = self.contents.table.place(index);
        let (fetch, bytes) = match &self.contents.store {
            Store::Objects(objects) => objects.fetch(place.at)?,
            Store::Tar(files) if u64::from(place.length) <= MAX_FILE_BYTES => {
                let length = u64::from(place.length);
                (files.fetch(place.file, place.at..place.at + length)?, Some(length))
            }
            _ => return None,
        };
        self.contents.ahead.put(index, fetch);
        Some(bytes)
    }

    /// Forgets what was begun by [`Source::fetch_ahead`] and not read.
    pub(crate) fn forget_ahead(&self) {
        self.contents.ahead.clear();
    }

    /// What was recognised: `class folders`, `flat folder`, `file list`, `tar archive`, `tar of class tars`, `tar shards`,
    /// `WebDataset` or `Parquet`.
    pub fn kind(&self) -> &'static str {
        self.contents.kind
    }

    /// The folder that keys are relative to, or the container as it was given.
    pub fn root(&self) -> &Path {
        &self.contents.root
    }

    /// Images left out because [`SourceOptions::exclude`] names them.
    pub fn excluded(&self) -> usize {
        self.excluded
    }

    /// Files and members passed over because they are not images; hidden ones are not counted.
    pub fn ignored(&self) -> usize {
        self.contents.ignored
    }

    /// Images whose label is -1.
    pub fn unlabelled(&self) -> usize {
        self.contents.table.unlabelled()
    }

    /// Images that got a key of their own because the container holds theirs more than once.
    pub fn renamed(&self) -> usize {
        self.contents.renamed
    }

    /// Items of which it is known already that [`Source::read`] fails: damaged places of containers. They count in
    /// [`Source::len`].
    pub fn damaged(&self) -> usize {
        self.contents.table.num_broken()
    }

    /// Contents that may be a mistake, one line each: class folders without images, a column that may be the label, links that
    /// lead to the same folder.
    pub fn notes(&self) -> &[String] {
        &self.contents.notes
    }

    /// Folders that belong to the source whether they lie below the root or not: links lead there, or a list names images in
    /// them.
    fn linked_folders(&self) -> BTreeSet<PathBuf> {
        let mut folders: BTreeSet<PathBuf> = self.contents.linked.iter().cloned().collect();
        if self.kind() == "file list" && !self.is_remote() {
            let mut last = PathBuf::new();
            for row in 0..self.len() {
                let path = self.root().join(self.contents.table.relative_path(row));
                let Some(folder) = path.parent().filter(|folder| *folder != last) else { continue };
                last = folder.to_owned();
                folders.insert(last.clone());
            }
        }
        folders
    }

    /// The folder in which `path` lies (which need not exist) and that belongs to the source by a link or a file list. What is
    /// written there would belong to the source the next time.
    pub fn linked_folder_around(&self, path: &Path) -> Option<PathBuf> {
        self.linked_folders().into_iter().find(|folder| lies_in(path, folder))
    }

    /// One line for users: `WebDataset: 1281167 images, 1000 classes, 2 damaged places`.
    pub fn describe(&self) -> String {
        let mut text = format!("{}: {}", self.kind(), count(self.len() - self.damaged(), "image"));
        let counts = [
            (self.classes().len(), "class"),
            (self.damaged(), "damaged place"),
            (self.excluded(), "excluded image"),
            (self.renamed(), "duplicate name"),
            (self.ignored(), "other file"),
        ];
        for (number, what) in counts.into_iter().filter(|(number, _)| *number > 0) {
            text = format!("{text}, {}", count(number, what));
        }
        text
    }
}

fn check_reachable() -> Result<(), IngestError> {
    match tokengrid_store::outage() {
        None => Ok(()),
        Some(_) if tokengrid_store::is_cancelled() => Err(IngestError::Cancelled),
        Some(reason) => Err(IngestError::Outage { reason }),
    }
}

/// Whether the path ends in one of the extensions, in any case.
fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| extensions.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn is_image_name(path: &Path) -> bool {
    has_extension(path, &IMAGE_EXTENSIONS)
}
