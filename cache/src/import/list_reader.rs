//! Parquet files whose grids are lists of integers, of ours or of anybody else.

use crate::error::CacheError;
use crate::files::token_lists::{Columns, JOB_KEY};
use crate::format::identity::JobIdentity;
use crate::format::schema::{CROP_X, CROP_Y, FLIP, KEY, LABEL, TOKENS, VIEW};
use crate::import::error::import_error;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A Parquet file with grids as lists, of ours or of anybody else.
pub(super) struct ListReader {
    path: PathBuf,
    file: Arc<File>,
    metadata: ParquetMetaData,
    /// The job that an export of ours describes.
    pub(super) identity: Option<JobIdentity>,
    tokens_column: String,
    label_column: Option<String>,
}

/// Usual names of the column of tokens, and of that of labels.
const TOKENS_COLUMNS: [&str; 6] = [TOKENS, "input_ids", "codes", "token_ids", "indices", "image_tokens"];
const LABEL_COLUMNS: [&str; 5] = [LABEL, "labels", "class_id", "class_label", "class"];

impl ListReader {
    /// Opens a file. Columns without a given name are looked for by the usual ones.
    ///
    /// # Errors
    /// [`CacheError::Import`] for a column that is not there.
    pub(super) fn open(
        path: &Path,
        tokens_column: Option<&str>,
        label_column: Option<&str>,
    ) -> Result<ListReader, CacheError> {
        let file = File::open(path).map_err(crate::error::io_error("open", path))?;
        let failed = |source| CacheError::ImportParquet { path: path.into(), source };
        let metadata = read_metadata(&file).map_err(failed)?;
        let entries = metadata.file_metadata().key_value_metadata().map_or(&[][..], |entries| entries);
        let text = entries.iter().find(|entry| entry.key == JOB_KEY).and_then(|entry| entry.value.as_deref());
        let identity = text.and_then(|text| serde_json::from_str(text).ok());
        let schema = metadata.file_metadata().schema_descr();
        let fields: Vec<_> = schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
        let find = |what, given: Option<&str>, usual: &[&str]| match given {
            Some(name) if fields.contains(&name) => Ok(Some(name.to_owned())),
            Some(name) => Err(import_error(path, what, format!("one of {}", fields.join(", ")), name)),
            None => Ok(usual.iter().find(|name| fields.contains(name)).map(|name| (*name).to_owned())),
        };
        let missing = || {
            let expected = format!("one of {}, or one that is named (--tokens-column)", TOKENS_COLUMNS.join(", "));
            import_error(path, "column of tokens", expected, format!("not among {}", fields.join(", ")))
        };
        let tokens_column = find("column of tokens", tokens_column, &TOKENS_COLUMNS)?.ok_or_else(missing)?;
        let label_column = find("column of labels", label_column, &LABEL_COLUMNS)?;
        Ok(ListReader { path: path.into(), file: Arc::new(file), metadata, identity, tokens_column, label_column })
    }

    pub(super) fn num_rows(&self) -> usize {
        self.metadata.row_groups().iter().map(|group| group.num_rows().max(0) as usize).sum()
    }

    pub(super) fn num_groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// All rows of a row group. Columns that the file does not have stay empty.
    pub(super) fn read_group(&self, group: usize) -> Result<Columns, CacheError> {
        let failed = |source| CacheError::ImportParquet { path: self.path.clone(), source };
        let (row_group, index) = (self.metadata.row_group(group), self.metadata.page_index_for_row_group(group));
        let properties = Arc::new(ReaderProperties::builder().build());
        let group = SerializedRowGroupReader::new(self.file.clone(), row_group, index, properties).map_err(failed)?;
        let column = |name: &str| find_column(&group, name);
        let rows = group.metadata().num_rows().max(0) as usize;
        let mut columns = Columns::default();
        let no_column = || failed(ParquetError::General(format!("no column {}", self.tokens_column)));
        let tokens = column(&self.tokens_column).ok_or_else(no_column)?;
        (columns.tokens, columns.lengths) = read_lists(&group, tokens, rows).map_err(failed)?;
        for (name, values) in [
            (self.label_column.as_deref().unwrap_or(LABEL), &mut columns.labels),
            (VIEW, &mut columns.views),
            (CROP_X, &mut columns.crop_x),
            (CROP_Y, &mut columns.crop_y),
        ] {
            if let Some(index) = column(name) {
                (*values, _) = read_lists(&group, index, rows).map_err(failed)?;
            }
        }
        if let Some(index) = column(KEY) {
            let reader = group.get_column_reader(index).map_err(failed)?;
            let ColumnReader::ByteArrayColumnReader(reader) = reader else {
                return Err(failed(ParquetError::General("the column key is not text".to_owned())));
            };
            columns.keys = read_values(reader, rows).map_err(failed)?.0;
        }
        if let Some(index) = column(FLIP)
            && let ColumnReader::BoolColumnReader(reader) = group.get_column_reader(index).map_err(failed)?
        {
            columns.flips = read_values(reader, rows).map_err(failed)?.0;
        }
        Ok(columns)
    }
}

/// Reads the footer of any writer. Some give 0 as the place of a dictionary that a column does not have, which the `parquet`
/// crate takes at its word.
fn read_metadata(file: &File) -> ParquetResult<ParquetMetaData> {
    let mut metadata = ParquetMetaDataReader::new().parse_and_finish(file)?.into_builder();
    let has_place = |column: &ColumnChunkMetaData| {
        column.dictionary_page_offset().is_none_or(|place| (1..column.data_page_offset()).contains(&place))
    };
    let mut groups = metadata.take_row_groups();
    for group in groups.iter_mut().filter(|group| !group.columns().iter().all(has_place)) {
        let repaired = |column: &ColumnChunkMetaData| match has_place(column) {
            true => Ok(column.clone()),
            false => column.clone().into_builder().set_dictionary_page_offset(None).build(),
        };
        let columns = group.columns().iter().map(repaired).collect::<ParquetResult<_>>()?;
        *group = group.clone().into_builder().set_column_metadata(columns).build()?;
    }
    Ok(metadata.set_row_groups(groups).build())
}

/// A leaf column by the name that it or its list has.
fn find_column(group: &dyn RowGroupReader, name: &str) -> Option<usize> {
    let columns = group.metadata().columns();
    columns.iter().position(|column| column.column_path().parts().first().is_some_and(|part| part == name))
}

/// The values of a column of integers, and how many of them each record has.
fn read_lists(group: &dyn RowGroupReader, index: usize, rows: usize) -> ParquetResult<(Vec<i64>, Vec<usize>)> {
    match group.get_column_reader(index)? {
        ColumnReader::Int32ColumnReader(reader) => {
            let (values, lengths) = read_values::<Int32Type>(reader, rows)?;
            Ok((values.into_iter().map(i64::from).collect(), lengths))
        }
        ColumnReader::Int64ColumnReader(reader) => read_values::<Int64Type>(reader, rows),
        _ => Err(ParquetError::General(format!("column {index} holds no integers of 32 or 64 bits"))),
    }
}

/// All values, and how many of them each record has. Empty lists and nulls are records without values.
fn read_values<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize) -> ParquetResult<(Vec<T::T>, Vec<usize>)> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = 0;
    while records < rows {
        let (read, ..) =
            reader.read_records(rows - records, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
        if read == 0 {
            return Err(ParquetError::EOF(format!("{records} records, expected {rows}")));
        }
        records += read;
    }
    let most = definitions.iter().max().copied().unwrap_or(0);
    let mut lengths = Vec::with_capacity(rows);
    if repetitions.is_empty() {
        let defined = |i: usize| usize::from(definitions.get(i).is_none_or(|level| *level == most));
        lengths.extend((0..rows).map(defined));
    }
    for (repetition, definition) in repetitions.iter().zip(definitions.iter().chain(std::iter::repeat(&most))) {
        if *repetition == 0 {
            lengths.push(0);
        }
        if let Some(length) = lengths.last_mut() {
            *length += usize::from(*definition == most);
        }
    }
    if lengths.iter().sum::<usize>() != values.len() {
        return Err(ParquetError::General("a column has nulls within its lists".to_owned()));
    }
    Ok((values, lengths))
}
