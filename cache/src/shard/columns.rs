//! Decoding of the small columns (everything but the tokens, which are mapped).

use bytes::Bytes;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use std::ops::Range;
use std::sync::Arc;

/// Reads rows `rows` of a required column of a row group with `num_rows` rows.
///
/// The chunk's checksum must have been verified: this relies on the decoder, which is not designed for hostile bytes.
///
/// # Errors
/// When the chunk cannot be decoded or has fewer values than rows.
pub(crate) fn read_column<T: DataType>(
    file: &Arc<Bytes>,
    chunk: &ColumnChunkMetaData,
    num_rows: usize,
    rows: Range<usize>,
) -> Result<Vec<T::T>, ParquetError> {
    let pages = SerializedPageReader::new(Arc::clone(file), chunk, num_rows, None)?;
    let mut reader = ColumnReaderImpl::<T>::new(chunk.column_descr_ptr(), Box::new(pages));
    let skipped = if rows.start == 0 { 0 } else { reader.skip_records(rows.start)? };
    let mut values = Vec::with_capacity(rows.len());
    while values.len() < rows.len() {
        let (records, ..) = reader.read_records(rows.len() - values.len(), None, None, &mut values)?;
        if records == 0 {
            break;
        }
    }
    if skipped == rows.start && values.len() == rows.len() {
        Ok(values)
    } else {
        Err(ParquetError::EOF(format!("{} values, expected {}", skipped + values.len(), rows.end)))
    }
}
