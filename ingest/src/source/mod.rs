//! What a path holds: images by position, each with a key, a label and its bytes.
//!
//! A source is recognised by itself: a tree of class folders or a flat folder (module `tree`), or a list of files (module
//! `list`). Keys and labels of a million images fit in some fifty megabytes: one string holds all keys, and a file's path is
//! built from its key when it is read.

mod keys;
mod list;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::decode::Format;
use crate::error::IngestError;
use keys::KeyTable;

/// Largest file that [`Source::read`] reads, in bytes. Beyond what any picture within the pixel limit needs in practice.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// File name endings of images, in lower case. What a file is, is told from its contents when it is decoded.
const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// What is left out of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Images to skip, by key or by file name. Class indices do not change by it.
    pub exclude: Vec<String>,
    /// Take only so many images, the first ones in order.
    pub limit: Option<usize>,
}

/// The images under a path, in a fixed order: by class, then by name, compared as bytes, folder by folder.
///
/// Opening lists names only; files are opened when they are read. Share it between threads in an `Arc`.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    kind: &'static str,
    keys: KeyTable,
    labels: Vec<i32>,
    classes: Vec<String>,
    excluded: usize,
    ignored: usize,
}

impl Source {
    /// Recognises and lists what is at `path`:
    ///
    /// - a folder whose sub-folders hold images: class folders. The class index is the rank of the first folder name below
    ///   `path` among all of them, in byte order; folders inside a class belong to it. Images beside the class folders have
    ///   the label -1;
    /// - a folder with images only: flat, every label is -1;
    /// - a `.txt` file: one path per line, relative to the list's folder, optionally followed by a tab and an integer label
    ///   (or by white space and an integer at the end of the line).
    ///
    /// Names are images by their ending (jpg, jpeg, png, webp, gif, bmp, in any case). Hidden files and folders and
    /// `__MACOSX` are passed over. Symbolic links are followed, except into a folder that contains them.
    ///
    /// # Errors
    /// [`IngestError`], one line that names the path and what to do: nothing there, nothing readable, no images, a list that
    /// names missing files, a container that this version does not read.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Source, IngestError> {
        if let Some(container) = shard_pattern(path) {
            return Err(IngestError::ContainerNotSupported { path: path.to_owned(), container });
        }
        let metadata = path.metadata().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => IngestError::NotFound { path: path.to_owned() },
            _ => IngestError::Unreadable { path: path.to_owned(), source },
        })?;
        let source = if metadata.is_dir() {
            tree::open(path, options)?
        } else if has_extension(path, &["txt"]) {
            list::open(path, options)?
        } else {
            return Err(describe_file(path));
        };
        source.check_not_empty(path, options)
    }

    fn check_not_empty(self, path: &Path, options: &SourceOptions) -> Result<Source, IngestError> {
        let path = path.to_owned();
        match (self.len(), self.excluded) {
            (1.., _) => Ok(self),
            (0, _) if options.limit == Some(0) => Ok(self),
            (0, 0) => Err(IngestError::Empty { path, ignored: self.ignored }),
            (0, excluded) => Err(IngestError::AllExcluded { path, excluded }),
        }
    }

    /// Number of images.
    #[allow(clippy::len_without_is_empty, reason = "a source without images is an error of `open`")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The image's name: its path relative to the root, with `/` between the parts. The same image has the same key
    /// wherever the data set lies. Keys of one source differ from each other.
    ///
    /// Bytes of a file name that are not UTF-8 appear as `%XX`; should that be the name of another file in the folder, `~`
    /// is appended until it is not.
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn key(&self, index: usize) -> &str {
        self.keys.key(index)
    }

    /// The image's class index, -1 if unknown.
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn label(&self, index: usize) -> i32 {
        self.labels[index]
    }

    /// Folder names (wnids) by class index. Empty where the source has no class folders.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Reads the image's file into `into`, whose contents are replaced and whose memory is reused.
    ///
    /// # Errors
    /// What the operating system says; also for a file that is not a regular file or is larger than [`MAX_FILE_BYTES`].
    ///
    /// # Panics
    /// If `index` is not below [`Source::len`].
    pub fn read(&self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        read_file(&self.path(index), into)
    }

    fn path(&self, index: usize) -> PathBuf {
        self.root.join(self.keys.relative_path(index))
    }

    /// What was recognised: `class folders`, `flat folder` or `file list`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The folder that keys are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Images left out because [`SourceOptions::exclude`] names them.
    pub fn excluded(&self) -> usize {
        self.excluded
    }

    /// Files passed over because their names are not those of images; hidden files are not counted.
    pub fn ignored(&self) -> usize {
        self.ignored
    }
}

fn read_file(path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
    // Asked before opening: opening a named pipe would wait for a writer.
    let length = path.metadata().and_then(|m| check_regular(&m))?;
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE_BYTES} bytes"));
    if length > MAX_FILE_BYTES {
        return Err(too_large());
    }
    into.try_reserve(length as usize + 1).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(into)?;
    if read as u64 > MAX_FILE_BYTES { Err(too_large()) } else { Ok(()) }
}

/// The length of a regular file.
fn check_regular(metadata: &std::fs::Metadata) -> io::Result<u64> {
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Collects images in order, applying [`SourceOptions`].
struct Collector<'a> {
    options: &'a SourceOptions,
    exclude: std::collections::HashSet<&'a str>,
    keys: KeyTable,
    labels: Vec<i32>,
    excluded: usize,
    ignored: usize,
}

impl<'a> Collector<'a> {
    fn new(options: &'a SourceOptions) -> Collector<'a> {
        let exclude = options.exclude.iter().map(String::as_str).collect();
        Collector { options, exclude, keys: KeyTable::default(), labels: Vec::new(), excluded: 0, ignored: 0 }
    }

    /// Takes an image. `path` is given where the key is not the file's relative path.
    fn add(&mut self, key: &str, path: Option<PathBuf>, label: i32) {
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        if self.exclude.contains(key) || self.exclude.contains(name) {
            self.excluded += 1;
        } else if !self.is_full() {
            self.keys.push(key, path);
            self.labels.push(label);
        }
    }

    fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.labels.len() >= limit)
    }

    fn finish(self, root: PathBuf, kind: &'static str, classes: Vec<String>) -> Source {
        let Collector { keys, labels, excluded, ignored, .. } = self;
        Source { root, kind, keys, labels, classes, excluded, ignored }
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

/// What a file name says about containers.
fn container_name(path: &Path) -> Option<&'static str> {
    if has_extension(path, &["tar", "tgz"]) || path.to_string_lossy().to_ascii_lowercase().ends_with(".tar.gz") {
        return Some("a tar archive");
    }
    if has_extension(path, &["parquet"]) {
        return Some("a Parquet file");
    }
    has_extension(path, &["zip"]).then_some("a zip archive")
}

/// `{000..099}.tar` and the like, which name no file.
fn shard_pattern(path: &Path) -> Option<&'static str> {
    let text = path.to_string_lossy();
    let is_pattern = text.contains('{') && text.contains("..") && text.contains('}') && !path.exists();
    is_pattern.then_some("a pattern of shards")
}

/// Why a file that is no list cannot be a source.
fn describe_file(path: &Path) -> IngestError {
    let mut start = [0; 512];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    let start = match read {
        Ok(length) => &start[..length],
        Err(source) => return IngestError::Unreadable { path: path.to_owned(), source },
    };
    let by_content = match start {
        [b'P', b'A', b'R', b'1', ..] => Some("a Parquet file"),
        _ if start.get(257..262) == Some(b"ustar") => Some("a tar archive"),
        _ => None,
    };
    if let Some(container) = by_content.or_else(|| container_name(path)) {
        return IngestError::ContainerNotSupported { path: path.to_owned(), container };
    }
    let found =
        Format::of(start).map_or("a file of another kind".to_owned(), |format| format!("a single {format} file"));
    IngestError::NotASource { path: path.to_owned(), found }
}
