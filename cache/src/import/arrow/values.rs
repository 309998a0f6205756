//! The values of columns.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, downcast_integer_array};
use arrow_schema::DataType;
use parquet::data_type::ByteArray;

/// Values of a column within lists or without, and how many of them each row has.
pub(super) type Flat = (Vec<i64>, Vec<usize>);

const NULLS: &str = "it has nulls";

/// A column of integers, in lists of any depth. Nulls are errors, but a row that is null itself is `null`. No values where there
/// is no such column. An error is a sentence about the column.
pub(super) fn integers(batch: &RecordBatch, name: &str, null: Option<i64>) -> Result<Flat, String> {
    let Some(array) = batch.column_by_name(name) else { return Ok(Flat::default()) };
    let (mut values, starts) = with_starts(array, null).map_err(|what| about(name, what))?;
    values.truncate(starts[starts.len() - 1]);
    values.drain(..starts[0]);
    Ok((values, starts.windows(2).map(|row| row[1] - row[0]).collect()))
}

/// A column of one integer per row.
pub(super) fn one_each(batch: &RecordBatch, name: &str, null: Option<i64>) -> Result<Vec<i64>, String> {
    let (values, lengths) = integers(batch, name, null)?;
    match lengths.iter().all(|length| *length == 1) {
        true => Ok(values),
        false => Err(about(name, "it holds lists, not one number per row")),
    }
}

/// A column of text.
pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<ByteArray>, String> {
    let Some(array) = batch.column_by_name(name) else { return Ok(Vec::new()) };
    let owned = |text: Option<&str>| text.map(ByteArray::from);
    let texts: Option<Vec<ByteArray>> = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(owned).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(owned).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(owned).collect(),
        _ => return Err(about(name, "it holds no text")),
    };
    texts.ok_or_else(|| about(name, NULLS))
}

fn about(name: &str, what: &str) -> String {
    format!("column {name}: {what}")
}

/// All values within a column, and where those of each row begin, with the end of the last.
fn with_starts(array: &ArrayRef, null: Option<i64>) -> Result<(Vec<i64>, Vec<usize>), &'static str> {
    // Bounds are made once the values are there: of what holds nothing, a file may say any number of rows.
    let (within, bounds): (_, Box<dyn Iterator<Item = usize>>) = match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            (lists.values(), Box::new(lists.value_offsets().iter().map(|bound| *bound as usize)))
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            (lists.values(), Box::new(lists.value_offsets().iter().map(|bound| *bound as usize)))
        }
        DataType::FixedSizeList(_, size @ 1..) => {
            (array.as_fixed_size_list().values(), Box::new((0..=array.len()).map(|row| row * *size as usize)))
        }
        _ => return Ok((numbers(array, null)?, (0..=array.len()).collect())),
    };
    if array.null_count() > 0 {
        return Err(NULLS);
    }
    let (values, starts) = with_starts(within, None)?;
    Ok((values, bounds.map(|bound| starts[bound]).collect()))
}

fn numbers(array: &dyn Array, null: Option<i64>) -> Result<Vec<i64>, &'static str> {
    if let Some(flags) = array.as_boolean_opt() {
        return flags.iter().map(|flag| flag.map(i64::from).or(null)).collect::<Option<_>>().ok_or(NULLS);
    }
    let numbers: Option<Vec<i64>> = downcast_integer_array!(
        array => array.iter().map(|number| number.map(wide).or(null)).collect(),
        _ => return Err("it holds no integers"),
    );
    numbers.ok_or(NULLS)
}

/// What does not fit is no token, and is refused as the largest number.
fn wide(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
