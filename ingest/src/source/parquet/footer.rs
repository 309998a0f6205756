//! The footer of a Parquet file: where row groups and columns lie.

use super::columns::Columns;
use super::page::Chunk;
use crate::source::options::Columns as Wanted;
use bytes::Bytes;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnDescPtr;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokengrid_store::Blob;

/// Rows that a file may have beyond one for each of its bytes. Rows of one dictionary entry, or without an image, take next to
/// nothing; and a footer that claims rows that are not there must not fill the memory.
const MAX_FREE_ROWS: u64 = 1 << 20;

/// A column of a row group.
pub(super) struct Column {
    pub(super) descr: ColumnDescPtr,
    pub(super) chunk: Chunk,
    /// Rows without a value, if the file says how many.
    pub(super) num_nulls: Option<u64>,
}

/// The columns of a row group, or what is wrong with them.
pub(super) struct Group {
    pub(super) rows: u64,
    pub(super) image: Result<Column, String>,
    pub(super) path: Option<Result<Column, String>>,
    pub(super) label: Option<Result<Column, String>>,
}

impl Group {
    /// Bytes of the columns.
    fn lengths(&self) -> impl Iterator<Item = u64> {
        let columns = [Some(&self.image), self.path.as_ref(), self.label.as_ref()];
        columns.into_iter().flatten().flatten().map(|column| column.chunk.length)
    }
}

/// What a footer says.
pub(super) struct Footer {
    pub(super) groups: Vec<Group>,
    pub(super) columns: Columns,
}

/// Why there is no footer.
pub(super) enum FooterError {
    /// A good file of something else.
    NoImageColumn { columns: String },
    /// Columns that are ambiguous, or not what their names say.
    Refused { problem: String },
    /// A file that is cut off or overwritten.
    Damaged { reason: String },
}

impl Footer {
    pub(super) fn read(file: &Blob, wanted: Wanted<'_>) -> Result<Footer, FooterError> {
        // As in columns: a panic is damage that the reader did not expect.
        catch_unwind(AssertUnwindSafe(|| Footer::try_read(file, wanted)))
            .unwrap_or_else(|_| Err(FooterError::Damaged { reason: "the footer cannot be interpreted".to_owned() }))
    }

    fn try_read(file: &Blob, wanted: Wanted<'_>) -> Result<Footer, FooterError> {
        let damaged = |reason: String| FooterError::Damaged { reason };
        let length = file.len().map_err(|error| damaged(format!("cannot be read: {error}")))?;
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(&Positioned { file, length })
            .map_err(|error| damaged(format!("the footer cannot be read: {error}")))?;
        let columns = Columns::choose(&metadata, wanted)?;
        let mut groups = Vec::new();
        let mut total = 0u64;
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).map_err(|_| damaged("a negative number of rows".to_owned()))?;
            total = total.saturating_add(rows);
            groups.push(columns.group(group, rows, length));
        }
        if total > length.max(MAX_FREE_ROWS) {
            return Err(damaged(format!("{total} rows in {length} bytes")));
        }
        // Columns that lie on each other would be read again and again.
        if groups.iter().flat_map(Group::lengths).fold(0, u64::saturating_add) > length {
            return Err(damaged("its columns are larger than the file".to_owned()));
        }
        Ok(Footer { groups, columns })
    }
}

impl Columns {
    fn group(&self, group: &RowGroupMetaData, rows: u64, length: u64) -> Group {
        let column = |number| column(group, number, rows, length);
        Group { rows, image: column(self.image), path: self.path.map(column), label: self.label.map(column) }
    }
}

fn column(group: &RowGroupMetaData, number: usize, rows: u64, file_length: u64) -> Result<Column, String> {
    let chunk = group.columns().get(number).ok_or("a row group without its columns")?;
    let descr = chunk.column_descr_ptr();
    // Some writers say 0 where there is no dictionary.
    let data = chunk.data_page_offset();
    let start = chunk.dictionary_page_offset().filter(|offset| (1..data).contains(offset)).unwrap_or(data);
    let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
    let inside = range.filter(|(start, length)| start.checked_add(*length).is_some_and(|end| end <= file_length));
    let (start, length) = inside.ok_or_else(|| format!("column {} lies beyond the end of the file", descr.path()))?;
    let num_nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
    Ok(Column { descr, chunk: Chunk { start, length, rows, compression: chunk.compression() }, num_nulls })
}

/// A file read by position.
struct Positioned<'a> {
    file: &'a Blob,
    length: u64,
}

impl Length for Positioned<'_> {
    fn len(&self) -> u64 {
        self.length
    }
}

impl<'a> ChunkReader for Positioned<'a> {
    type T = PositionedRead<'a>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(PositionedRead { file: self.file, at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let outside = || ParquetError::EOF(format!("{length} bytes at {start} of {}", self.length));
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(outside());
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_up_to(&mut bytes, start)?;
        if read == length { Ok(bytes.into()) } else { Err(outside()) }
    }
}

/// A position in a file that advances with each read.
struct PositionedRead<'a> {
    file: &'a Blob,
    at: u64,
}

impl Read for PositionedRead<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_up_to(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
