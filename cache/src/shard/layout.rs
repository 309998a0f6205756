//! Where everything lies in a shard, checked against what the format allows.

use crate::error::{CacheError, io_error};
use crate::format::schema::{COLUMNS, FLIP, GROUP_BYTES_MAX, KEY, SPLIT, TOKENS, keys};
use crate::shard::footer::ShardFooter;
use crate::shard::handle::Handle;
use crate::shard::page_header::{DATA_PAGE, DataPageHeader, PLAIN};
use crate::shard::tail::{MAGIC, read_at};
use parquet::basic::{Compression, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::ops::Range;
use std::path::Path;

/// The longest page header that is read: ours have about 20 bytes.
const PAGE_HEADER_BYTES_MAX: u64 = 256;

/// Where a row group and its columns lie in the file. All ranges are inside the file and follow each other.
pub(super) struct GroupLayout {
    pub(super) range: Range<u64>,
    /// By column, in file order: [`COLUMNS`], then any others.
    pub(super) chunks: Vec<Range<u64>>,
}

/// A shard whose footer was read.
pub(super) struct Unchecked<'a> {
    pub(super) path: &'a Path,
    /// Length of the file.
    pub(super) bytes: u64,
    pub(super) footer: &'a ShardFooter,
    pub(super) metadata: &'a ParquetMetaData,
    pub(super) handle: &'a Handle,
    /// Columns that this version knows beside those of every shard, and where they are.
    pub(super) more_columns: &'a [(&'static str, usize)],
}

impl Unchecked<'_> {
    /// Checks all row groups and finds where they are. `rows_intact`: whether what lies in front of the footer can be
    /// relied on, and is checked too.
    pub(super) fn check(&self, rows_intact: bool) -> Result<Vec<GroupLayout>, CacheError> {
        let groups = self.metadata.num_row_groups();
        if groups != self.footer.row_groups.len() {
            let (expected, actual) = (groups.to_string(), self.footer.row_groups.len().to_string());
            let key = keys::ROW_GROUPS;
            return Err(CacheError::ShardMetadata { path: self.path.to_owned(), key, expected, actual });
        }
        let mut layouts = Vec::with_capacity(groups);
        let mut next = MAGIC.len() as u64;
        for index in 0..groups {
            let mut layout = GroupLayout::check(self, index, next, rows_intact)?;
            next = layout.range.end;
            if index == 0 {
                layout.range.start = 0; // the leading magic belongs to the first group's checksum
            }
            layouts.push(layout);
        }
        Ok(layouts)
    }
}

impl GroupLayout {
    /// Checks row group `index` of a shard, which must begin at byte `start`.
    fn check(shard: &Unchecked<'_>, index: usize, start: u64, rows_intact: bool) -> Result<GroupLayout, CacheError> {
        let group = shard.metadata.row_group(index);
        let rows = shard.footer.row_groups[index].rows;
        let checks = LayoutChecks { shard, row_group: index };
        checks.equal("number of rows", rows as i64, group.num_rows())?;
        let num_columns = shard.metadata.file_metadata().schema_descr().num_columns();
        if num_columns < COLUMNS.len() {
            return Err(checks.error("number of columns", COLUMNS.len().to_string(), num_columns.to_string()));
        }
        checks.equal("number of columns", num_columns as i64, group.num_columns() as i64)?;
        let mut next = start;
        let mut chunks = Vec::with_capacity(num_columns);
        // More columns may follow those that we know; they too must lie where the last one ended.
        for (i, column) in group.columns().iter().enumerate() {
            let range = checks.chunk_range(column, next)?;
            next = range.end;
            let more = shard.more_columns.iter().find(|(_, index)| *index == i).map(|(name, _)| *name);
            if let Some(name) = COLUMNS.get(i).copied().or(more) {
                checks.column(column, name, rows)?;
            }
            chunks.push(range);
        }
        let header = checks.token_column(group.column(0), &chunks[0], rows)?;
        if rows_intact {
            checks.token_page(header, rows)?;
        }
        if next - start >= GROUP_BYTES_MAX as u64 {
            return Err(checks.error("size", format!("less than {GROUP_BYTES_MAX} bytes"), (next - start).to_string()));
        }
        Ok(GroupLayout { range: start..next, chunks })
    }
}

/// Checks of one row group, with what their errors have in common.
struct LayoutChecks<'a> {
    shard: &'a Unchecked<'a>,
    row_group: usize,
}

impl LayoutChecks<'_> {
    fn error(&self, what: &'static str, expected: String, actual: String) -> CacheError {
        CacheError::GroupLayout { path: self.shard.path.to_owned(), row_group: self.row_group, what, expected, actual }
    }

    fn equal(&self, what: &'static str, expected: i64, actual: i64) -> Result<(), CacheError> {
        if expected == actual { Ok(()) } else { Err(self.error(what, expected.to_string(), actual.to_string())) }
    }

    /// The bytes of a column chunk, which must begin at `next` and end inside the file.
    fn chunk_range(&self, column: &ColumnChunkMetaData, next: u64) -> Result<Range<u64>, CacheError> {
        let begin = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        self.equal("offset of a column", next as i64, begin)?;
        let end = u64::try_from(column.compressed_size()).ok().and_then(|size| next.checked_add(size));
        match end.filter(|end| *end <= self.shard.bytes && column.data_page_offset() >= begin) {
            Some(end) => Ok(next..end),
            None => Err(self.error(
                "size of a column",
                format!("at most {} bytes", self.shard.bytes.saturating_sub(next)),
                column.compressed_size().to_string(),
            )),
        }
    }

    fn column(&self, column: &ColumnChunkMetaData, name: &'static str, rows: usize) -> Result<(), CacheError> {
        let expected = match name {
            TOKENS => Type::FIXED_LEN_BYTE_ARRAY,
            KEY | SPLIT => Type::BYTE_ARRAY,
            FLIP => Type::BOOLEAN,
            _ => Type::INT32,
        };
        let described = column.column_descr();
        let found = (column.column_path().string(), column.column_type(), described.max_def_level());
        if found != (name.to_owned(), expected, 0) {
            return Err(CacheError::ColumnType {
                path: self.shard.path.to_owned(),
                column: name,
                expected: format!("required {expected}"),
                actual: format!("{} {} with {} optional levels", found.0, found.1, found.2),
            });
        }
        self.equal("number of values", rows as i64, column.num_values())
    }

    /// Uncompressed grids without dictionary whose data is where the footer says; returns where the page's header is.
    fn token_column(
        &self,
        column: &ColumnChunkMetaData,
        chunk: &Range<u64>,
        rows: usize,
    ) -> Result<Range<u64>, CacheError> {
        let width = self.shard.footer.grid.row_bytes();
        self.equal("width of a grid in bytes", width as i64, i64::from(column.column_descr().type_length()))?;
        if column.compression() != Compression::UNCOMPRESSED || column.dictionary_page_offset().is_some() {
            let actual = format!("{:?}, dictionary {:?}", column.compression(), column.dictionary_page_offset());
            return Err(self.error("token column", "uncompressed, no dictionary".to_owned(), actual));
        }
        let header_bytes = rows
            .checked_mul(width)
            .and_then(|data| (chunk.end - chunk.start).checked_sub(data as u64))
            .filter(|bytes| (1..=PAGE_HEADER_BYTES_MAX).contains(bytes))
            .ok_or_else(|| {
                let expected = format!("{rows} x {width} bytes and a page header");
                self.error("size of the token column", expected, (chunk.end - chunk.start).to_string())
            })?;
        let offset = self.shard.footer.row_groups[self.row_group].tokens_offset;
        self.equal("tokens_offset", (chunk.start + header_bytes) as i64, i64::try_from(offset).unwrap_or(-1))?;
        Ok(chunk.start..chunk.start + header_bytes)
    }

    /// One PLAIN page with all of the rows.
    fn token_page(&self, header: Range<u64>, rows: usize) -> Result<(), CacheError> {
        let data_bytes = rows * self.shard.footer.grid.row_bytes();
        let mut bytes = vec![0; (header.end - header.start) as usize];
        let file = self.shard.handle.file()?;
        read_at(&file, header.start, &mut bytes).map_err(io_error("read", self.shard.path))?;
        let header = DataPageHeader::parse(&bytes).map_err(|what| CacheError::PageHeader {
            path: self.shard.path.to_owned(),
            row_group: self.row_group,
            what,
        })?;
        self.equal("token page type", i64::from(DATA_PAGE), i64::from(header.page_type))?;
        self.equal("token page encoding", i64::from(PLAIN), i64::from(header.encoding))?;
        self.equal("rows of the token page", rows as i64, i64::from(header.num_values))?;
        self.equal("bytes of the token page", data_bytes as i64, i64::from(header.compressed_bytes))?;
        self.equal("bytes of the token page", data_bytes as i64, i64::from(header.uncompressed_bytes))
    }
}
