//! Values of a column, page by page.

use super::direct::Direct;
use super::page::{Chunk, MAX_PAGE_BYTES, PageSpan, Pages};
use crate::decode::panic_text;
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::schema::types::ColumnDescPtr;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokengrid_store::Blob;

/// Largest column of paths or labels of a row group, in bytes without compression.
const MAX_COLUMN_BYTES: u64 = 256 << 20;
/// Rows decoded at once.
const BATCH_ROWS: usize = 64;

/// A page of the file: as stored, and decompressed.
struct Loaded {
    span: PageSpan,
    body: Bytes,
    page: Page,
}

impl Loaded {
    fn new(file: &Blob, span: PageSpan, compression: Compression) -> Result<Loaded, String> {
        let body = span.body(file)?;
        let page = span.unpack(&body, compression)?;
        Ok(Loaded { span, body, page })
    }
}

/// The dictionary that a data page needs, and the page.
fn load(file: &Blob, chunk: &Chunk, pages: &Pages, page: usize) -> Result<(Option<Loaded>, Loaded), String> {
    let span = pages.data[page].1;
    let dictionary = if span.needs_dictionary() {
        let dictionary = pages.dictionary.ok_or("its dictionary is missing")?;
        let loaded = Loaded::new(file, dictionary, chunk.compression);
        Some(loaded.map_err(|problem| format!("dictionary: {problem}"))?)
    } else {
        None
    };
    Ok((dictionary, Loaded::new(file, span, chunk.compression)?))
}

/// Runs what decodes pages: the decoders are thorough, but damage is endless, and a panic is damage that they did not expect.
fn safely<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|panic| Err(format!("the decoder gave up: {}", panic_text(&*panic))))
}

/// The images of one data page, `None` where a row has none, and where they lie if they can be read alone.
pub(super) fn page_images(
    file: &Blob,
    column: &ColumnDescPtr,
    chunk: &Chunk,
    pages: &Pages,
    page: usize,
) -> Result<(Vec<Option<ByteArray>>, Option<Direct>), String> {
    safely(|| try_page_images(file, column, chunk, pages, page))
}

fn try_page_images(
    file: &Blob,
    column: &ColumnDescPtr,
    chunk: &Chunk,
    pages: &Pages,
    page: usize,
) -> Result<(Vec<Option<ByteArray>>, Option<Direct>), String> {
    let (dictionary, data) = load(file, chunk, pages, page)?;
    // Entries of a dictionary are shared by the images that are equal, and are no larger than it is together.
    let max_bytes = if dictionary.is_some() { usize::MAX } else { MAX_PAGE_BYTES as usize };
    let ready = dictionary.iter().chain([&data]).map(|loaded| loaded.page.clone()).collect();
    let images = decode::<ByteArrayType>(column, ready, data.span.num_values as usize, ByteArray::len, max_bytes)?;
    let holder = dictionary.as_ref().unwrap_or(&data);
    let direct = Direct::new(&holder.span, chunk.compression, &holder.body, holder.page.buffer(), &images);
    Ok((images, direct))
}

/// The values of a whole chunk, `None` where a row has none.
///
/// `bytes` says what a value takes in memory; more than `max_bytes` of all values is an error.
pub(super) fn chunk_values<T: DataType>(
    file: &Blob,
    column: &ColumnDescPtr,
    chunk: &Chunk,
    bytes: impl Fn(&T::T) -> usize,
    max_bytes: usize,
) -> Result<Vec<Option<T::T>>, String> {
    safely(|| try_chunk_values::<T>(file, column, chunk, bytes, max_bytes))
}

fn try_chunk_values<T: DataType>(
    file: &Blob,
    column: &ColumnDescPtr,
    chunk: &Chunk,
    bytes: impl Fn(&T::T) -> usize,
    max_bytes: usize,
) -> Result<Vec<Option<T::T>>, String> {
    let pages = Pages::locate(file, chunk);
    if let Some(problem) = pages.problem {
        return Err(problem);
    }
    let spans = || pages.dictionary.iter().chain(pages.data.iter().map(|(_, span)| span));
    let total: u64 = spans().map(|span| u64::from(span.uncompressed)).sum();
    if total > MAX_COLUMN_BYTES {
        return Err(format!("{total} bytes; the limit is {MAX_COLUMN_BYTES}"));
    }
    let load = |span: &PageSpan| Loaded::new(file, *span, chunk.compression).map(|loaded| loaded.page);
    let ready = spans().map(load).collect::<Result<_, _>>()?;
    decode::<T>(column, ready, chunk.rows as usize, bytes, max_bytes)
}

fn decode<T: DataType>(
    column: &ColumnDescPtr,
    pages: VecDeque<Page>,
    rows: usize,
    bytes: impl Fn(&T::T) -> usize,
    max_bytes: usize,
) -> Result<Vec<Option<T::T>>, String> {
    let mut reader = ColumnReaderImpl::<T>::new(column.clone(), Box::new(Ready(pages)));
    let (mut all, mut total) = (Vec::new(), 0);
    while all.len() < rows {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (records, ..) = reader
            .read_records(BATCH_ROWS.min(rows - all.len()), Some(&mut levels), None, &mut values)
            .map_err(|error| format!("cannot be decoded: {error}"))?;
        if records == 0 {
            return Err(format!("{} of {rows} rows are in it", all.len()));
        }
        total += values.iter().map(&bytes).sum::<usize>();
        if total > max_bytes {
            return Err(format!("more than {max_bytes} bytes"));
        }
        let mut values = values.into_iter();
        let is_there = |row: usize| levels.get(row).is_none_or(|level| *level == column.max_def_level());
        all.extend((0..records).map(|row| if is_there(row) { values.next() } else { None }));
    }
    Ok(all)
}

/// Pages that are there already.
struct Ready(VecDeque<Page>);

impl Iterator for Ready {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Ready {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        Err(ParquetError::General("pages are not skipped".to_owned()))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        Err(ParquetError::General("pages are not skipped".to_owned()))
    }
}
