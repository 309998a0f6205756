//! Parquet files in the layout of Hugging Face's `imagenet-1k`.

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A row: bytes, path and label, each perhaps null.
pub(crate) type Row = (Option<Vec<u8>>, Option<String>, Option<i64>);

/// Options of writing a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub compression: Compression,
    pub dictionary: bool,
    pub version_2: bool,
    pub rows_per_group: usize,
    pub rows_per_page: usize,
}

impl Default for Layout {
    fn default() -> Layout {
        let compression = Compression::SNAPPY;
        Layout { compression, dictionary: true, version_2: false, rows_per_group: 4, rows_per_page: 100 }
    }
}

impl Layout {
    fn properties(&self) -> WriterPropertiesBuilder {
        let version = if self.version_2 { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
        WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(self.compression)
            .set_dictionary_enabled(self.dictionary)
            .set_write_batch_size(1)
            .set_data_page_row_count_limit(self.rows_per_page)
    }
}

/// Writes rows with class names, if any, as Hugging Face's libraries do.
pub(crate) fn write(path: &Path, rows: &[Row], names: Option<&[&str]>, layout: Layout) {
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let mut properties = layout.properties();
    if let Some(names) = names {
        let info = serde_json::json!({"info": {"features": {
            "image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}});
        properties =
            properties.set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), info.to_string())]));
    }
    let schema = Arc::new(parse_message_type(schema).expect("schema"));
    let file = File::create(path).expect("file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).expect("writer");
    for rows in rows.chunks(layout.rows_per_group) {
        let mut group = writer.next_row_group().expect("row group");
        let bytes: Vec<_> = rows.iter().map(|row| row.0.clone().map(ByteArray::from)).collect();
        let paths: Vec<_> = rows.iter().map(|row| row.1.as_deref().map(ByteArray::from)).collect();
        for values in [bytes, paths] {
            let levels: Vec<i16> = values.iter().map(|value| if value.is_some() { 2 } else { 1 }).collect();
            let values: Vec<ByteArray> = values.into_iter().flatten().collect();
            let mut column = group.next_column().expect("column").expect("a column");
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).expect("values");
            column.close().expect("column");
        }
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.2.is_some())).collect();
        let labels: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
        let mut column = group.next_column().expect("column").expect("a column");
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).expect("labels");
        column.close().expect("column");
        group.close().expect("row group");
    }
    writer.close().expect("file");
}
