//! Parquet files with one changed byte: the decoders of the `parquet` crate panic on some of them, and that costs the rows of
//! the page.

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

const GROUPS: usize = 2;
const ROWS_PER_GROUP: usize = 3;

/// Rows whose images begin alike, so that encodings of differences have something to do. `None`: with a dictionary.
fn write(path: &Path, encoding: Option<Encoding>, version: WriterVersion) -> Vec<Vec<u8>> {
    let schema = "message schema { required group image { required binary bytes; required binary path (UTF8); } }";
    let schema = Arc::new(parse_message_type(schema).expect("schema"));
    let mut properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(encoding.is_none());
    if let Some(encoding) = encoding {
        let images = ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]);
        let paths = ColumnPath::from(vec!["image".to_owned(), "path".to_owned()]);
        properties = properties.set_column_encoding(images, encoding).set_column_encoding(paths, encoding);
    }
    let file = File::create(path).expect("file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).expect("writer");
    let image = |row: usize| [&b"the same start "[..], &vec![row as u8; 9 + row]].concat();
    for group in 0..GROUPS {
        let rows = group * ROWS_PER_GROUP..(group + 1) * ROWS_PER_GROUP;
        let images: Vec<ByteArray> = rows.clone().map(|row| image(row).into()).collect();
        let paths: Vec<ByteArray> = rows.map(|row| format!("{row:02}.png").into_bytes().into()).collect();
        let mut group = writer.next_row_group().expect("row group");
        for values in [images, paths] {
            let mut column = group.next_column().expect("column").expect("a column");
            column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("values");
            column.close().expect("column");
        }
        group.close().expect("row group");
    }
    writer.close().expect("file");
    (0..GROUPS * ROWS_PER_GROUP).map(image).collect()
}

/// What a damaged file gives: reasons of the rows that are lost. Others must be what they were, but for the changed byte.
fn losses(path: &Path, images: &[Vec<u8>]) -> Vec<String> {
    let source = match Source::open(path, &SourceOptions::default()) {
        Ok(source) => source,
        Err(IngestError::AllDamaged { reason, .. }) => return vec![reason],
        Err(_) => return Vec::new(),
    };
    let (mut lost, mut intact) = (Vec::new(), 0);
    let mut file = Vec::new();
    for index in 0..source.len() {
        match source.read(index, &mut file) {
            Err(error) => lost.push(error.to_string()),
            Ok(()) => intact += usize::from(images.contains(&file)),
        }
    }
    // A changed byte may make rows of one group be lost or other than they were.
    assert!(intact >= (GROUPS - 1) * ROWS_PER_GROUP, "{intact} rows are as they were; lost: {lost:?}");
    lost
}

#[test]
fn a_panic_in_the_decoder_of_a_page_costs_the_page() {
    let encodings =
        [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)];
    // Panics are expected here: a line for each would be noise.
    std::panic::set_hook(Box::new(|_| ()));
    let root = tempfile::tempdir().expect("temporary folder");
    let path = root.path().join("x.parquet");
    let mut panics = 0;
    for (encoding, version) in encodings.into_iter().flat_map(|encoding| {
        [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0].map(|version| (encoding, version))
    }) {
        let images = write(&path, encoding, version);
        let sound = fs::read(&path).expect("file");
        assert_eq!(losses(&path, &images), [""; 0], "{encoding:?}");
        let footer_bytes = u32::from_le_bytes(sound[sound.len() - 8..sound.len() - 4].try_into().expect("four bytes"));
        let pages = 4..sound.len() - 8 - footer_bytes as usize;
        for at in pages {
            let mut damaged = sound.clone();
            damaged[at] ^= [1, 0x80, 0xFF][at % 3];
            fs::write(&path, &damaged).expect("file");
            panics += losses(&path, &images).iter().filter(|reason| reason.contains("gave up")).count();
        }
    }
    let _ = std::panic::take_hook();
    assert!(panics > 0, "no file made a decoder panic: this test tries nothing");
}
