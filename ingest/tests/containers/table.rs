//! Parquet files of any columns.

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The values of a column, each perhaps null.
pub(crate) enum Values {
    Bytes(Vec<Option<Vec<u8>>>),
    Int32(Vec<Option<i32>>),
    Int64(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
}

/// Text as a column.
pub(crate) fn text(values: &[&str]) -> Values {
    Values::Bytes(values.iter().map(|text| Some(text.as_bytes().to_vec())).collect())
}

/// Pictures as a column: one byte each, counted from `first`.
pub(crate) fn pictures(first: u8, number: u8) -> Values {
    Values::Bytes((first..first + number).map(|byte| Some(vec![byte])).collect())
}

/// A required group of bytes and path, as a part of a schema.
pub(crate) fn image(name: &str) -> String {
    format!("required group {name} {{ optional binary bytes; optional binary path (STRING); }}")
}

/// Writes a file with these columns, all of them optional and in required groups or none, and perhaps features as Hugging
/// Face's libraries write them.
pub(crate) fn write(path: &Path, schema: &str, columns: Vec<Values>, features: Option<serde_json::Value>) {
    write_with(path, schema, columns, features, WriterProperties::builder().build());
}

/// As [`write`], with properties of the writer.
pub(crate) fn write_with(
    path: &Path,
    schema: &str,
    columns: Vec<Values>,
    features: Option<serde_json::Value>,
    properties: WriterProperties,
) {
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {schema} }}")).expect("schema"));
    let mut writer =
        SerializedFileWriter::new(File::create(path).expect("file"), schema, Arc::new(properties)).expect("writer");
    if let Some(features) = features {
        let info = serde_json::json!({"info": {"features": features}});
        writer.append_key_value_metadata(KeyValue::new("huggingface".to_owned(), info.to_string()));
    }
    let mut group = writer.next_row_group().expect("row group");
    for column in columns {
        match column {
            Values::Bytes(values) => {
                let values = values.into_iter().map(|value| value.map(ByteArray::from)).collect();
                column_of::<ByteArrayType>(&mut group, values);
            }
            Values::Int32(values) => column_of::<Int32Type>(&mut group, values),
            Values::Int64(values) => column_of::<Int64Type>(&mut group, values),
            Values::Double(values) => column_of::<DoubleType>(&mut group, values),
            Values::Bool(values) => column_of::<BoolType>(&mut group, values),
        }
    }
    group.close().expect("row group");
    writer.close().expect("file");
}

fn column_of<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: Vec<Option<T::T>>) {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let mut column = group.next_column().expect("column").expect("a column");
    column.typed::<T>().write_batch(&values, Some(&levels), None).expect("values");
    column.close().expect("column");
}
