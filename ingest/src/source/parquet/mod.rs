//! Parquet files in the layout of Hugging Face's `imagenet-1k`: a row an image, with its bytes, its path and its label.
//!
//! Opening reads footers and the small columns (paths, labels). The pages of the image column are found by their headers when
//! a row group is first read. A page is decompressed once for the images read next (module `cache`); after that, its images are had
//! one by one where the compression allows it (module `direct`).

mod cache;
mod column;
mod direct;
mod footer;
mod page;
mod thrift;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::schema::types::ColumnDescPtr;

use super::classes::{classes_by_label, label_by_folder};
use super::files::{FileSet, open_regular, too_large};
use super::imagenet::key_of_path;
use super::keys::key_part;
use super::table::{Place, Table};
use super::{Contents, MAX_FILE_BYTES, Store as AnyStore};
use crate::error::IngestError;
use crate::memory;
use cache::{Images, PageCache};
use column::{chunk_values, page_images};
use direct::Direct;
use footer::{Column, Footer, FooterError, Group};
use page::{Chunk, Pages};

/// Paths of a row group may take so many bytes, and a single one so many. Longer ones are as good as none.
const MAX_PATHS_BYTES: usize = 64 << 20;
const MAX_PATH_BYTES: usize = 4096;

/// Lists the rows of the files at `paths`, which together are the source at `root`.
pub(super) fn open(root: &Path, paths: Vec<PathBuf>) -> Result<Contents, IngestError> {
    let mut index = Index { has_paths: true, ..Index::default() };
    for (number, path) in paths.iter().enumerate() {
        match open_regular(path).map_err(|error| format!("cannot be read: {error}")) {
            Ok(file) => index.add(path, number as u32, &file)?,
            Err(reason) => index.break_file(path, number as u32, reason),
        }
    }
    let Index { table, groups, names, has_labels, has_paths, .. } = index;
    let (mut table, renamed) = table.sorted("");
    let classes = match names {
        _ if !has_labels && has_paths => label_by_folder(&mut table, std::iter::empty()),
        Some(names) if has_labels => names,
        _ => classes_by_label(&table),
    };
    let store = AnyStore::Parquet(Store { files: FileSet::new(paths), groups, cache: PageCache::default() });
    Ok(Contents { kind: "Parquet", table, classes, renamed, store, ..Contents::new(root) })
}

/// What all files hold, in the order in which it was found.
#[derive(Debug, Default)]
struct Index {
    table: Table,
    /// Row groups by file.
    groups: Vec<Vec<ImageGroup>>,
    /// Class names of the first file that has any.
    names: Option<Vec<String>>,
    has_labels: bool,
    /// Whether every row has a path.
    has_paths: bool,
}

impl Index {
    fn add(&mut self, path: &Path, number: u32, file: &File) -> Result<(), IngestError> {
        let footer = match Footer::read(file) {
            Ok(footer) => footer,
            Err(FooterError::NoImageColumn { columns }) => {
                return Err(IngestError::NoImageColumn { path: path.to_owned(), columns });
            }
            Err(FooterError::Damaged { reason }) => {
                self.break_file(path, number, reason);
                return Ok(());
            }
        };
        if self.names.is_none() {
            self.names = footer.class_names;
        }
        self.has_labels |= footer.has_labels;
        let (mut groups, mut first_row) = (Vec::new(), 0);
        for group in footer.groups {
            let rows = group.rows;
            let result = self.add_group(path, Place { file: number, length: 0, at: first_row }, file, group);
            match result {
                Ok(group) => groups.push(group),
                Err(reason) => {
                    let last = first_row + rows.max(1) - 1;
                    let key = format!("{}@{first_row}-{last}", name_of(path));
                    self.table.push_broken(&key, Place { file: number, length: 0, at: first_row }, reason);
                }
            }
            first_row += rows;
        }
        self.groups.push(groups);
        Ok(())
    }

    fn break_file(&mut self, path: &Path, file: u32, reason: String) {
        self.groups.push(Vec::new());
        self.table.push_broken(&name_of(path), Place { file, ..Place::default() }, reason);
    }

    /// Adds the rows of a group, the first of which is at `first`.
    fn add_group(&mut self, path: &Path, first: Place, file: &File, group: Group) -> Result<ImageGroup, String> {
        let Column { descr, chunk } = group.image?;
        if chunk.rows > chunk.length {
            return Err(format!("{} rows in {} bytes of images", chunk.rows, chunk.length));
        }
        let paths = group.path.transpose()?.map(|column| read_paths(file, &column)).transpose()?;
        let labels = group.label.transpose()?.map(|column| read_labels(file, &column)).transpose()?;
        let stem = path.file_stem().map_or_else(String::new, |stem| key_part(stem).0);
        for row in 0..chunk.rows {
            let at = first.at + row;
            let path = paths.as_ref().and_then(|paths| paths[row as usize].as_deref());
            let key = path.and_then(key_of_path);
            self.has_paths &= key.is_some();
            let key = key.unwrap_or_else(|| format!("{stem}/{at:08}"));
            let label = labels.as_ref().map_or(-1, |labels| labels[row as usize]);
            self.table.push(&key, label, Place { at, ..first });
        }
        Ok(ImageGroup { first_row: first.at, column: descr, chunk, index: OnceLock::new() })
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| key_part(name).0)
}

fn read_paths(file: &File, column: &Column) -> Result<Vec<Option<String>>, String> {
    let Column { descr, chunk } = column;
    let paths = chunk_values::<ByteArrayType>(file, descr, chunk, ByteArray::len, MAX_PATHS_BYTES)
        .map_err(|problem| format!("column {}: {problem}", descr.path()))?;
    let text = |path: ByteArray| (path.len() <= MAX_PATH_BYTES).then(|| String::from_utf8_lossy(path.data()).into());
    Ok(paths.into_iter().map(|path| path.and_then(text)).collect())
}

/// Labels as class indices, -1 for what is none.
fn read_labels(file: &File, column: &Column) -> Result<Vec<i32>, String> {
    let Column { descr, chunk } = column;
    let wide = if descr.physical_type() == parquet::basic::Type::INT32 {
        let labels = chunk_values::<Int32Type>(file, descr, chunk, |_| 0, 0);
        labels.map(|labels| labels.into_iter().map(|label| label.map(i64::from)).collect())
    } else {
        chunk_values::<Int64Type>(file, descr, chunk, |_| 0, 0)
    };
    let wide: Vec<Option<i64>> = wide.map_err(|problem| format!("column {}: {problem}", descr.path()))?;
    let label =
        |label: Option<i64>| label.and_then(|label| i32::try_from(label).ok()).map_or(-1, |label| label.max(-1));
    Ok(wide.into_iter().map(label).collect())
}

/// The images of a row group.
#[derive(Debug)]
struct ImageGroup {
    /// Row of the file with which the group begins.
    first_row: u64,
    column: ColumnDescPtr,
    chunk: Chunk,
    /// Found when the group is first read.
    index: OnceLock<GroupIndex>,
}

/// The pages of a row group's images.
#[derive(Debug)]
struct GroupIndex {
    pages: Pages,
    /// For each page, once it was decoded: where its images lie, if they can be had one by one.
    direct: Vec<OnceLock<Option<Direct>>>,
}

impl GroupIndex {
    fn new(file: &File, chunk: &Chunk) -> GroupIndex {
        let pages = Pages::locate(file, chunk);
        let direct = pages.data.iter().map(|_| OnceLock::new()).collect();
        GroupIndex { pages, direct }
    }

    /// Bytes that a page takes when it is decoded, with its dictionary.
    fn bytes_of(&self, page: usize) -> usize {
        let span = self.pages.data[page].1;
        let dictionary = self.pages.dictionary.filter(|_| span.needs_dictionary());
        span.uncompressed as usize + dictionary.map_or(0, |page| page.uncompressed as usize)
    }
}

/// Reads images of Parquet files.
#[derive(Debug)]
pub(super) struct Store {
    files: FileSet,
    groups: Vec<Vec<ImageGroup>>,
    cache: PageCache,
}

impl Store {
    /// Appends the image at a row.
    pub(super) fn read(&self, place: Place, into: &mut Vec<u8>) -> io::Result<()> {
        let groups = &self.groups[place.file as usize];
        let number = groups.partition_point(|group| group.first_row <= place.at) - 1;
        let group = &groups[number];
        let row = place.at - group.first_row;
        self.files.with(place.file, |file| {
            let index = group.index.get_or_init(|| GroupIndex::new(file, &group.chunk));
            let Some(page) = index.pages.page_of(row) else {
                let problem = index.pages.problem.as_deref().unwrap_or("its page is missing");
                return Err(damaged(format!("row {}: {problem}", place.at)));
            };
            let row_of_page = (row - index.pages.data[page].0) as usize;
            let direct = || index.direct[page].get().and_then(Option::as_ref);
            let id = (place.file, number as u32, page as u32);
            match (self.cache.slot(id, index.bytes_of(page), || direct().is_none()), direct()) {
                (Some(slot), _) => {
                    let images = slot.images(|| group.decode(file, index, page));
                    let damaged_page = |problem: &String| damaged(format!("page with row {}: {problem}", place.at));
                    let image = images.as_ref().map_err(damaged_page)?[row_of_page].as_ref();
                    check_length(image.map(ByteArray::len), place)?;
                    into.extend_from_slice(image.map_or(&[], ByteArray::data));
                    Ok(())
                }
                (None, Some(direct)) => {
                    check_length(direct.length(row_of_page).map(|length| length as usize), place)?;
                    direct.read(file, row_of_page, into)
                }
                (None, None) => unreachable!("a page that cannot be read directly is needed in the cache"),
            }
        })
    }
}

impl ImageGroup {
    fn decode(&self, file: &File, index: &GroupIndex, page: usize) -> Images {
        // The page as it is in the file, and decompressed. Whoever reads an image holds no other claim.
        let _claim = memory::claim(2 * index.bytes_of(page) as u64);
        let (images, direct) = page_images(file, &self.column, &self.chunk, &index.pages, page)?;
        index.direct[page].get_or_init(|| direct);
        Ok(images)
    }
}

fn check_length(length: Option<usize>, place: Place) -> io::Result<()> {
    match length {
        Some(length) if length as u64 > MAX_FILE_BYTES => Err(too_large()),
        Some(_) => Ok(()),
        None => Err(damaged(format!("row {} holds no image", place.at))),
    }
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
