//! Parquet files whose grids are lists of integers, of ours or of anybody else.

use crate::error::{CacheError, io_error};
use crate::files::token_lists::{Columns, JOB_KEY};
use crate::format::identity::JobIdentity;
use crate::format::schema::{CROP_X, CROP_Y, FLIP, KEY, LABEL, TOKENS, VIEW};
use crate::import::error::import_error;
use parquet::basic::ConvertedType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType, Int32Type, Int64Type};
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
pub(super) const TOKENS_COLUMNS: [&str; 6] = [TOKENS, "input_ids", "codes", "token_ids", "indices", "image_tokens"];
pub(super) const LABEL_COLUMNS: [&str; 5] = [LABEL, "labels", "class_id", "class_label", "class"];

impl ListReader {
    /// Opens a file. Columns without a given name are looked for by the usual ones.
    ///
    /// # Errors
    /// [`CacheError::NoRows`] for a file of no bytes; [`CacheError::Import`] for a column that is not there.
    pub(super) fn open(
        path: &Path,
        tokens_column: Option<&str>,
        label_column: Option<&str>,
    ) -> Result<ListReader, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        if file.metadata().map_err(io_error("read the size of", path))?.len() == 0 {
            return Err(CacheError::NoRows { path: path.into(), what: "it is an empty file".into() });
        }
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

    /// The keys of a row group, and how many rows it has; no keys where the file does not have the column.
    pub(super) fn read_keys(&self, group: usize) -> Result<(Option<Vec<ByteArray>>, usize), CacheError> {
        let failed = |source| CacheError::ImportParquet { path: self.path.clone(), source };
        let group = self.open_group(group).map_err(failed)?;
        let rows = group.metadata().num_rows().max(0) as usize;
        Ok((keys_in(&group, rows).map_err(failed)?, rows))
    }

    fn open_group(&self, group: usize) -> ParquetResult<SerializedRowGroupReader<'_, File>> {
        let (row_group, index) = (self.metadata.row_group(group), self.metadata.page_index_for_row_group(group));
        let properties = Arc::new(ReaderProperties::builder().build());
        SerializedRowGroupReader::new(self.file.clone(), row_group, index, properties)
    }

    /// All rows of a row group. Columns that the file does not have stay empty.
    pub(super) fn read_group(&self, group: usize) -> Result<Columns, CacheError> {
        let failed = |source| CacheError::ImportParquet { path: self.path.clone(), source };
        let group = self.open_group(group).map_err(failed)?;
        let column = |name: &str| find_column(&group, name);
        let rows = group.metadata().num_rows().max(0) as usize;
        let mut columns = Columns::default();
        let no_column = || failed(ParquetError::General(format!("no column {}", self.tokens_column)));
        let tokens = column(&self.tokens_column).ok_or_else(no_column)?;
        (columns.tokens, columns.lengths) = read_lists(&group, tokens, rows).map_err(failed)?;
        let label = self.label_column.as_deref().unwrap_or(LABEL);
        for (name, values, null) in [
            (label, &mut columns.labels, Some(-1)),
            (VIEW, &mut columns.views, None),
            (CROP_X, &mut columns.crop_x, None),
            (CROP_Y, &mut columns.crop_y, None),
        ] {
            if let Some(index) = column(name) {
                let read = read_lists(&group, index, rows);
                *values = read.and_then(|read| one_each(name, read, null)).map_err(failed)?;
            }
        }
        columns.keys = keys_in(&group, rows).map_err(failed)?.unwrap_or_default();
        if let Some(index) = column(FLIP)
            && let ColumnReader::BoolColumnReader(reader) = group.get_column_reader(index).map_err(failed)?
        {
            let read = read_values(reader, rows, max_definition(&group, index));
            columns.flips = read.and_then(|read| one_each(FLIP, read, None)).map_err(failed)?;
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

/// The column of keys, where there is one.
fn keys_in(group: &dyn RowGroupReader, rows: usize) -> ParquetResult<Option<Vec<ByteArray>>> {
    let Some(index) = find_column(group, KEY) else { return Ok(None) };
    let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(index)? else {
        return Err(ParquetError::General("the column key is not text".to_owned()));
    };
    one_each(KEY, read_values(reader, rows, max_definition(group, index))?, None).map(Some)
}

/// The definition level of a value that is there.
fn max_definition(group: &dyn RowGroupReader, index: usize) -> i16 {
    group.metadata().column(index).column_descr().max_def_level()
}

/// The values of a column of integers, and how many of them each record has.
fn read_lists(group: &dyn RowGroupReader, index: usize, rows: usize) -> ParquetResult<Read<i64>> {
    let column = group.metadata().column(index).column_descr();
    let most = column.max_def_level();
    match group.get_column_reader(index)? {
        ColumnReader::Int32ColumnReader(reader) => {
            let (values, lengths) = read_values::<Int32Type>(reader, rows, most)?;
            let wide = |value: i32| match column.converted_type() {
                ConvertedType::UINT_32 => i64::from(value.cast_unsigned()),
                _ => i64::from(value),
            };
            Ok((values.into_iter().map(wide).collect(), lengths))
        }
        ColumnReader::Int64ColumnReader(reader) => read_values::<Int64Type>(reader, rows, most),
        _ => Err(ParquetError::General(format!("column {} holds no integers of 32 or 64 bits", column.name()))),
    }
}

/// Values, and how many of them each record has.
type Read<T> = (Vec<T>, Vec<usize>);

/// The one value of each record of a column; `null` stands for those without.
fn one_each<T: Clone>(column: &str, (values, lengths): Read<T>, null: Option<T>) -> ParquetResult<Vec<T>> {
    let mut values = values.into_iter();
    let value = |(record, length)| {
        let found = match length {
            0 => null.clone(),
            1 => values.next(),
            _ => None,
        };
        let wrong = || format!("column {column} has {length} values in row {record} of a row group, expected 1");
        found.ok_or_else(|| ParquetError::General(wrong()))
    };
    lengths.into_iter().enumerate().map(value).collect()
}

/// All values, and how many of them each record has; `most` is the definition level of a value. Empty lists and nulls are records
/// without values; a null within a list is an error, since the values after it would move.
fn read_values<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize, most: i16) -> ParquetResult<Read<T::T>> {
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
    let mut lengths = Vec::with_capacity(rows);
    if repetitions.is_empty() {
        let defined = |i: usize| usize::from(definitions.get(i).is_none_or(|level| *level == most));
        lengths.extend((0..rows).map(defined));
    }
    // Entries of a record: one for an empty list, else one per element.
    let mut entries = 0;
    for (repetition, definition) in repetitions.iter().zip(definitions.iter().chain(std::iter::repeat(&most))) {
        let is_value = usize::from(*definition == most);
        if *repetition == 0 {
            lengths.push(0);
            entries = 0;
        }
        entries += 1;
        let record = lengths.len();
        if let Some(length) = lengths.last_mut() {
            *length += is_value;
            if entries > 1 && *length < entries {
                return Err(ParquetError::General(format!("row {} of a row group has a null in its list", record - 1)));
            }
        }
    }
    if lengths.iter().sum::<usize>() != values.len() {
        return Err(ParquetError::General("a column has nulls within its lists".to_owned()));
    }
    Ok((values, lengths))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    const SCHEMA: &str = "message rows {
        optional group tokens (LIST) { repeated group list { optional int32 element; } }
        optional int32 label (UINT_32);
    }";

    /// A file with these entries of `tokens` (repetition, definition) and these labels.
    fn write(path: &Path, tokens: &[i32], levels: &[(i16, i16)], labels: &[Option<i32>]) {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        let (repetitions, definitions): (Vec<_>, Vec<_>) = levels.iter().copied().unzip();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(tokens, Some(&definitions), Some(&repetitions)).unwrap();
        column.close().unwrap();
        let definitions: Vec<_> = labels.iter().map(|label| i16::from(label.is_some())).collect();
        let values: Vec<_> = labels.iter().flatten().copied().collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&values, Some(&definitions), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
    }

    fn read(path: &Path) -> Result<Columns, CacheError> {
        ListReader::open(path, None, None).unwrap().read_group(0)
    }

    #[test]
    fn a_null_label_is_no_class_and_moves_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.parquet");
        write(&path, &[1, 2, 3], &[(0, 3), (0, 3), (0, 3)], &[Some(3), None, Some(-1)]);
        let columns = read(&path).unwrap();
        assert_eq!((columns.labels, columns.lengths), (vec![3, -1, i64::from(u32::MAX)], vec![1, 1, 1]));
        write(&path, &[1, 2], &[(0, 3), (0, 3)], &[None, None]);
        assert_eq!(read(&path).unwrap().labels, [-1, -1]);
    }

    #[test]
    fn a_null_within_a_list_is_refused_with_its_row() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.parquet");
        for levels in [[(0, 3), (0, 3), (1, 2), (1, 3)], [(0, 3), (0, 2), (1, 3), (1, 3)]] {
            write(&path, &[1, 2, 3], &levels, &[Some(0), Some(0)]);
            let text = format!("{:?}", read(&path).err().unwrap());
            assert!(text.contains("row 1 of a row group has a null"), "{text}");
        }
        // An empty list and a list that is null are records without values.
        write(&path, &[1], &[(0, 1), (0, 0), (0, 3)], &[Some(0); 3]);
        assert_eq!(read(&path).unwrap().lengths, [0, 0, 1]);
    }
}
