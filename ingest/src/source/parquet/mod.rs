//! Parquet files in the layout of Hugging Face's `imagenet-1k`: one row per image, with its bytes, its path and its label.
//!
//! Opening reads footers and the small columns (paths, labels; module `index`). The pages of the image column are found by
//! their headers when a row group is first read. A page is decompressed once for the images read next (module `cache`); after
//! that, its images are had one by one where the compression allows it (module `direct`).

mod cache;
mod column;
mod columns;
mod direct;
mod footer;
mod index;
mod labels;
mod page;
mod thrift;

use super::MAX_FILE_BYTES;
use super::files::{FileSet, SourceFile, too_large};
use super::table::Place;
use crate::memory;
use cache::{Images, PageCache};
use column::page_images;
use direct::Direct;
pub(super) use index::{has_images, open};
use page::{Chunk, Pages};
use parquet::data_type::ByteArray;
use parquet::schema::types::ColumnDescPtr;
use std::io;
use std::sync::OnceLock;
use tokengrid_store::Blob;

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
    fn new(file: &Blob, chunk: &Chunk) -> GroupIndex {
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
    /// Whether images are never read alone ([`SourceOptions::whole_pages`](crate::SourceOptions::whole_pages)).
    pub(super) whole_pages: bool,
}

impl Store {
    fn new(files: Vec<SourceFile>, groups: Vec<Vec<ImageGroup>>) -> Store {
        Store { files: FileSet::new(files), groups, cache: PageCache::default(), whole_pages: false }
    }

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
            let direct = || index.direct[page].get().and_then(Option::as_ref).filter(|_| !self.whole_pages);
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
    fn new(first_row: u64, column: ColumnDescPtr, chunk: Chunk) -> ImageGroup {
        ImageGroup { first_row, column, chunk, index: OnceLock::new() }
    }

    fn decode(&self, file: &Blob, index: &GroupIndex, page: usize) -> Images {
        // The page as stored, and decompressed. A thread that reads an image holds no other claim.
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
