//! Parquet files whose grids are lists of integers: any reader's Parquet, larger and slower than a shard.

use crate::error::CacheError;
use crate::export::folder::Output;
use crate::files::token_lists::{Columns, JOB_KEY};
use crate::format::identity::JobIdentity;
use crate::format::row::Row;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows of a row group: 16 MB of 256-token grids.
const GROUP_ROWS: usize = 16_384;

const SCHEMA: &str = "message tokengrid {
    required group tokens (LIST) { repeated group list { required int32 element; } }
    required int32 label;
    required binary key (STRING);
    required int32 view;
    required int32 crop_x;
    required int32 crop_y;
    required boolean flip;
    SPLIT
}";

/// Only in files of caches with splits.
const SPLIT_COLUMN: &str = "required binary split (STRING);";

pub(super) struct ListWriter {
    path: PathBuf,
    file: SerializedFileWriter<Output>,
    rows: Columns,
}

impl ListWriter {
    pub(super) fn new(output: Output, identity: &JobIdentity) -> Result<ListWriter, CacheError> {
        let path = output.path().to_owned();
        let failed = |source| CacheError::encode(&path, source);
        let text = serde_json::to_string(identity)
            .map_err(|source| CacheError::ManifestSyntax { path: path.clone(), source })?;
        let properties = WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![KeyValue::new(JOB_KEY.to_owned(), text)]))
            .build();
        let schema = SCHEMA.replace("SPLIT", if identity.splits.is_empty() { "" } else { SPLIT_COLUMN });
        let schema = parse_message_type(&schema).map(Arc::new).map_err(failed)?;
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties)).map_err(failed)?;
        Ok(ListWriter { path, file, rows: Columns::default() })
    }

    /// `split`: where the cache has splits.
    pub(super) fn push(&mut self, row: &Row<'_>, split: Option<&str>) -> Result<(), CacheError> {
        let rows = &mut self.rows;
        rows.tokens.extend(row.tokens.iter().map(|token| i64::from(*token)));
        rows.lengths.push(row.tokens.len());
        rows.labels.push(row.label.into());
        rows.keys.push(ByteArray::from(row.key));
        rows.views.push(row.view.into());
        rows.crop_x.push(row.crop_x.into());
        rows.crop_y.push(row.crop_y.into());
        rows.flips.push(row.flip);
        rows.splits.extend(split.map(ByteArray::from));
        if rows.lengths.len() < GROUP_ROWS { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), CacheError> {
        if self.rows.lengths.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let failed = |source| CacheError::encode(&self.path, source);
        rows.write(self.file.next_row_group().map_err(failed)?).map_err(failed)
    }

    pub(super) fn finish(mut self) -> Result<Output, CacheError> {
        self.flush()?;
        let path = self.path;
        self.file.into_inner().map_err(|source| CacheError::encode(&path, source))
    }
}

impl Columns {
    fn write<W: std::io::Write + Send>(self, mut group: SerializedRowGroupWriter<'_, W>) -> ParquetResult<()> {
        let narrow = |values: &[i64]| values.iter().map(|value| *value as i32).collect::<Vec<_>>();
        // A list begins where the repetition level is 0.
        let repetitions: Vec<i16> =
            self.lengths.iter().flat_map(|length| (0..*length).map(|i| i16::from(i > 0))).collect();
        let definitions = vec![1; repetitions.len()];
        let levels = Some((&definitions[..], &repetitions[..]));
        write_column::<Int32Type, W>(&mut group, &narrow(&self.tokens), levels)?;
        write_column::<Int32Type, W>(&mut group, &narrow(&self.labels), None)?;
        write_column::<ByteArrayType, W>(&mut group, &self.keys, None)?;
        write_column::<Int32Type, W>(&mut group, &narrow(&self.views), None)?;
        write_column::<Int32Type, W>(&mut group, &narrow(&self.crop_x), None)?;
        write_column::<Int32Type, W>(&mut group, &narrow(&self.crop_y), None)?;
        write_column::<BoolType, W>(&mut group, &self.flips, None)?;
        if !self.splits.is_empty() {
            write_column::<ByteArrayType, W>(&mut group, &self.splits, None)?;
        }
        group.close().map(drop)
    }
}

fn write_column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> ParquetResult<()> {
    let missing = || ParquetError::General("the schema has fewer columns than the export".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels.map(|levels| levels.0), levels.map(|levels| levels.1))?;
    column.close()
}
