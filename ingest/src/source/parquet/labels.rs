//! Labels of a row group: numbers, or text.

use super::column::chunk_values;
use super::columns::describe;
use super::footer::Column;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use parquet::schema::types::ColumnDescriptor;
use tokengrid_store::Blob;

/// The most that the text labels of a row group may take, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Labels of rows.
pub(super) enum Labels {
    /// Class indices, -1 for none.
    Indices(Vec<i32>),
    Texts(Vec<Option<String>>),
}

/// Why there are none.
pub(super) enum LabelError {
    /// Values that are not classes.
    Refused(String),
    Damaged(String),
}

/// Reads a column of labels.
pub(super) fn read_labels(file: &Blob, column: &Column) -> Result<Labels, LabelError> {
    match column.descr.physical_type() {
        Type::BOOLEAN => indices::<BoolType>(file, column, |truth| Ok(i128::from(*truth))),
        // Unsigned numbers are stored as the signed ones with the same bits.
        Type::INT32 if is_unsigned(&column.descr) => indices::<Int32Type>(file, column, |i| Ok(i128::from(*i as u32))),
        Type::INT64 if is_unsigned(&column.descr) => indices::<Int64Type>(file, column, |i| Ok(i128::from(*i as u64))),
        Type::INT32 => indices::<Int32Type>(file, column, |index| Ok(i128::from(*index))),
        Type::INT64 => indices::<Int64Type>(file, column, |index| Ok(i128::from(*index))),
        Type::FIXED_LEN_BYTE_ARRAY => {
            indices::<FixedLenByteArrayType>(file, column, |half| whole(half_float(half.data())))
        }
        Type::FLOAT => indices::<FloatType>(file, column, |number| whole(f64::from(*number))),
        Type::DOUBLE => indices::<DoubleType>(file, column, |number| whole(*number)),
        _ => texts(file, column),
    }
}

fn indices<T: DataType>(
    file: &Blob,
    column: &Column,
    index: impl Fn(&T::T) -> Result<i128, String>,
) -> Result<Labels, LabelError> {
    let labels = values::<T>(file, column, |_| 0, 0)?.into_iter().enumerate().map(|(row, label)| {
        let Some(label) = label else { return Ok(-1) };
        let refuse = |value: String| {
            LabelError::Refused(format!(
                "row {row} of column {} has {value}, which is not a class index; a class index is 0 or more, and -1 means no label",
                describe(&column.descr)
            ))
        };
        let index = index(&label).map_err(refuse)?;
        i32::try_from(index).ok().filter(|index| *index >= -1).ok_or_else(|| refuse(index.to_string()))
    });
    labels.collect::<Result<_, _>>().map(Labels::Indices)
}

/// A whole number that was stored as a float, as pandas does where a label is missing. NaN is not a label.
fn whole(number: f64) -> Result<i128, String> {
    match number {
        _ if number.is_nan() => Ok(-1),
        _ if number.fract() == 0.0 && number.abs() < 1e18 => Ok(number as i128),
        _ => Err(number.to_string()),
    }
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    let unsigned = [ConvertedType::UINT_8, ConvertedType::UINT_16, ConvertedType::UINT_32, ConvertedType::UINT_64];
    match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        _ => unsigned.contains(&column.converted_type()),
    }
}

/// A float of 16 bits, little-endian: sign, 5 bits of exponent with the bias 15, 10 bits of fraction.
fn half_float(bytes: &[u8]) -> f64 {
    let bits = bytes.iter().rev().fold(0, |bits, byte| bits << 8 | i32::from(*byte));
    let (exponent, fraction) = (bits >> 10 & 0x1F, f64::from(bits & 0x3FF) / 1024.0);
    let size = match exponent {
        0 => fraction * 2f64.powi(-14),
        0x1F if fraction == 0.0 => f64::INFINITY,
        0x1F => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 0 { size } else { -size }
}

fn texts(file: &Blob, column: &Column) -> Result<Labels, LabelError> {
    let texts = values::<ByteArrayType>(file, column, ByteArray::len, MAX_TEXT_BYTES)?.into_iter().map(|text| {
        let text = text.map(|text| String::from_utf8(text.data().to_vec()));
        text.transpose().map_err(|_| {
            LabelError::Refused(format!("column {} is not text, and no class index", describe(&column.descr)))
        })
    });
    texts.collect::<Result<_, _>>().map(Labels::Texts)
}

fn values<T: DataType>(
    file: &Blob,
    column: &Column,
    bytes: impl Fn(&T::T) -> usize,
    max_bytes: usize,
) -> Result<Vec<Option<T::T>>, LabelError> {
    chunk_values::<T>(file, &column.descr, &column.chunk, bytes, max_bytes)
        .map_err(|problem| LabelError::Damaged(format!("column {}: {problem}", column.descr.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_16_bits() {
        let float = |bits: u16| half_float(&bits.to_le_bytes());
        assert_eq!([0x0000, 0x3C00, 0xC000, 0x63D0, 0x3800].map(float), [0.0, 1.0, -2.0, 1000.0, 0.5]);
        assert!(float(0x7E00).is_nan() && float(0x7C00).is_infinite());
    }
}
