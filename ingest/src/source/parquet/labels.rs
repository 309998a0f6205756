//! Labels of a row group: numbers, or text.

use std::fs::File;

use parquet::basic::Type;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};

use super::column::chunk_values;
use super::columns::describe;
use super::footer::Column;

/// Text labels of a row group may take so many bytes.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Labels of rows.
pub(super) enum Labels {
    /// Class indices, -1 for none.
    Indices(Vec<i32>),
    Texts(Vec<Option<String>>),
}

/// Why there are none.
pub(super) enum LabelError {
    /// Values that are no classes.
    Refused(String),
    Damaged(String),
}

/// Reads a column of labels.
pub(super) fn read_labels(file: &File, column: &Column) -> Result<Labels, LabelError> {
    match column.descr.physical_type() {
        Type::BOOLEAN => indices::<BoolType>(file, column, |truth| Ok(i64::from(*truth))),
        Type::INT32 => indices::<Int32Type>(file, column, |index| Ok(i64::from(*index))),
        Type::INT64 => indices::<Int64Type>(file, column, |index| Ok(*index)),
        Type::FLOAT => indices::<FloatType>(file, column, |number| whole(f64::from(*number))),
        Type::DOUBLE => indices::<DoubleType>(file, column, |number| whole(*number)),
        _ => texts(file, column),
    }
}

fn indices<T: DataType>(
    file: &File,
    column: &Column,
    index: impl Fn(&T::T) -> Result<i64, String>,
) -> Result<Labels, LabelError> {
    let labels = values::<T>(file, column, |_| 0, 0)?.into_iter().enumerate().map(|(row, label)| {
        let Some(label) = label else { return Ok(-1) };
        let refuse = |value: String| {
            LabelError::Refused(format!(
                "row {row} of column {} has {value}, which is no class index",
                describe(&column.descr)
            ))
        };
        let index = index(&label).map_err(refuse)?;
        i32::try_from(index.max(-1)).map_err(|_| refuse(index.to_string()))
    });
    labels.collect::<Result<_, _>>().map(Labels::Indices)
}

/// A whole number that was stored as a float, as pandas does where a label is missing. Not a number is no label.
fn whole(number: f64) -> Result<i64, String> {
    match number {
        _ if number.is_nan() => Ok(-1),
        _ if number.fract() == 0.0 => Ok(number as i64),
        _ => Err(number.to_string()),
    }
}

fn texts(file: &File, column: &Column) -> Result<Labels, LabelError> {
    let texts = values::<ByteArrayType>(file, column, ByteArray::len, MAX_TEXT_BYTES)?.into_iter().map(|text| {
        let text = text.map(|text| String::from_utf8(text.data().to_vec()));
        text.transpose().map_err(|_| {
            LabelError::Refused(format!("column {} is not text, and no class index", describe(&column.descr)))
        })
    });
    texts.collect::<Result<_, _>>().map(Labels::Texts)
}

fn values<T: DataType>(
    file: &File,
    column: &Column,
    bytes: impl Fn(&T::T) -> usize,
    max_bytes: usize,
) -> Result<Vec<Option<T::T>>, LabelError> {
    chunk_values::<T>(file, &column.descr, &column.chunk, bytes, max_bytes)
        .map_err(|problem| LabelError::Damaged(format!("column {}: {problem}", column.descr.path())))
}
