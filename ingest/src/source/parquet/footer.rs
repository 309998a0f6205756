//! The footer of a Parquet file: where row groups and columns lie, and what the classes are called.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::basic::Type;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use serde_json::Value;

use super::page::Chunk;
use crate::source::files::read_up_to;

/// A column of a row group.
pub(super) struct Column {
    pub(super) descr: ColumnDescPtr,
    pub(super) chunk: Chunk,
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
    pub(super) class_names: Option<Vec<String>>,
    pub(super) has_labels: bool,
}

/// Why there is no footer.
pub(super) enum FooterError {
    /// A good file of something else.
    NoImageColumn { columns: String },
    /// A file that is cut off or overwritten.
    Damaged { reason: String },
}

impl Footer {
    pub(super) fn read(file: &File) -> Result<Footer, FooterError> {
        // As in columns: a panic is damage that the reader did not expect.
        catch_unwind(AssertUnwindSafe(|| Footer::try_read(file)))
            .unwrap_or_else(|_| Err(FooterError::Damaged { reason: "the footer makes no sense".to_owned() }))
    }

    fn try_read(file: &File) -> Result<Footer, FooterError> {
        let damaged = |reason: String| FooterError::Damaged { reason };
        let length = file.metadata().map_err(|error| damaged(format!("cannot be read: {error}")))?.len();
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(&Positioned { file, length })
            .map_err(|error| damaged(format!("the footer cannot be read: {error}")))?;
        let schema = metadata.file_metadata().schema_descr();
        let Some(image) = image_column(schema) else {
            let columns: Vec<_> = schema.columns().iter().map(|column| column.path().string()).collect();
            return Err(FooterError::NoImageColumn { columns: columns.join(", ") });
        };
        let columns = Columns { image, path: path_column(schema, image), label: label_column(schema) };
        let mut groups = Vec::new();
        let mut total = 0u64;
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).map_err(|_| damaged("a negative number of rows".to_owned()))?;
            total = total.saturating_add(rows);
            groups.push(columns.group(group, rows, length));
        }
        if total > length {
            return Err(damaged(format!("{total} rows in {length} bytes")));
        }
        // Columns that lie on each other would be read again and again.
        if groups.iter().flat_map(Group::lengths).fold(0, u64::saturating_add) > length {
            return Err(damaged("its columns are larger than the file".to_owned()));
        }
        Ok(Footer { groups, class_names: class_names(&metadata), has_labels: columns.label.is_some() })
    }
}

/// Numbers of columns.
struct Columns {
    image: usize,
    path: Option<usize>,
    label: Option<usize>,
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
    Ok(Column { descr, chunk: Chunk { start, length, rows, compression: chunk.compression() } })
}

/// `image.bytes`, `bytes` in another column, or bytes right in `image`.
fn image_column(schema: &SchemaDescriptor) -> Option<usize> {
    let columns = schema.columns();
    let find = |wanted: &dyn Fn(&[String]) -> bool| {
        columns.iter().position(|column| {
            column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 && wanted(column.path().parts())
        })
    };
    find(&|parts| parts == ["image", "bytes"])
        .or_else(|| find(&|parts| matches!(parts, [_, bytes] if bytes == "bytes")))
        .or_else(|| find(&|parts| matches!(parts, [name] if ["image", "img", "jpg", "png"].contains(&name.as_str()))))
}

/// `path` beside the bytes.
fn path_column(schema: &SchemaDescriptor, image: usize) -> Option<usize> {
    let parts = schema.column(image).path().parts().to_vec();
    let [group, _] = &parts[..] else { return None };
    let is_path = |column: &ColumnDescPtr| {
        matches!(column.path().parts(), [first, second] if first == group && second == "path")
            && column.physical_type() == Type::BYTE_ARRAY
            && column.max_rep_level() == 0
    };
    schema.columns().iter().position(is_path)
}

fn label_column(schema: &SchemaDescriptor) -> Option<usize> {
    let find = |name: &str| {
        schema.columns().iter().position(|column| {
            matches!(column.path().parts(), [only] if only == name)
                && matches!(column.physical_type(), Type::INT32 | Type::INT64)
                && column.max_rep_level() == 0
        })
    };
    ["label", "labels", "cls"].into_iter().find_map(find)
}

/// The names that Hugging Face's libraries write beside the schema.
fn class_names(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_deref()?;
    let json: Value = serde_json::from_str(text).ok()?;
    let features = json.get("info")?.get("features")?;
    let label = ["label", "labels", "cls"].into_iter().find_map(|name| features.get(name))?;
    label.get("names")?.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// A file read by position.
struct Positioned<'a> {
    file: &'a File,
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
        let read = read_up_to(self.file, &mut bytes, start)?;
        if read == length { Ok(bytes.into()) } else { Err(outside()) }
    }
}

/// A place in a file that moves as it is read.
struct PositionedRead<'a> {
    file: &'a File,
    at: u64,
}

impl Read for PositionedRead<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = read_up_to(self.file, into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
