//! The bytes on disk, on which other programs rely, read without this crate's reader.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use parquet::basic::{Compression, ConvertedType, Encoding, LogicalType, PageType, Repetition, Type};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use std::fs;
use tokengrid_cache::{pack, verify};

const SHARD: &str = "shard-00000-00001.parquet";

fn open(dir: &std::path::Path) -> SerializedFileReader<fs::File> {
    SerializedFileReader::new(fs::File::open(dir.join(SHARD)).unwrap()).unwrap()
}

fn entry(reader: &SerializedFileReader<fs::File>, key: &str) -> String {
    let entries = reader.metadata().file_metadata().key_value_metadata().unwrap();
    entries.iter().find(|e| e.key == key).unwrap_or_else(|| panic!("{key} is missing")).value.clone().unwrap()
}

#[test]
fn columns_have_the_documented_types_and_encodings() {
    let (_temp, dir) = small_cache();
    let reader = open(&dir);
    let schema = reader.metadata().file_metadata().schema_descr();
    let expected = [
        ("tokens", Type::FIXED_LEN_BYTE_ARRAY),
        ("label", Type::INT32),
        ("key", Type::BYTE_ARRAY),
        ("view", Type::INT32),
        ("crop_x", Type::INT32),
        ("crop_y", Type::INT32),
        ("flip", Type::BOOLEAN),
    ];
    assert_eq!(schema.num_columns(), expected.len());
    for (column, (name, physical)) in schema.columns().iter().zip(expected) {
        assert_eq!((column.name(), column.physical_type()), (name, physical));
        assert_eq!(column.self_type().get_basic_info().repetition(), Repetition::REQUIRED);
    }
    assert_eq!(schema.column(0).type_length(), 34); // ceil(15 * 18 / 8)
    assert_eq!(schema.column(2).logical_type_ref(), Some(&LogicalType::String));
    assert_eq!(schema.column(2).converted_type(), ConvertedType::UTF8);
    for group in reader.metadata().row_groups() {
        let tokens = group.column(0);
        assert_eq!(tokens.compression(), Compression::UNCOMPRESSED);
        assert_eq!(tokens.dictionary_page_offset(), None);
        assert!(tokens.encodings().all(|e| matches!(e, Encoding::PLAIN | Encoding::RLE)));
        assert!(group.column(2).encodings().any(|e| e == Encoding::DELTA_BYTE_ARRAY));
    }
}

#[test]
fn grids_lie_consecutively_at_the_offset_of_the_metadata() {
    let (_temp, dir) = small_cache();
    let bytes = fs::read(dir.join(SHARD)).unwrap();
    let reader = open(&dir);
    let job = small_job();
    let groups: Value = serde_json::from_str(&entry(&reader, "tokengrid.row_groups")).unwrap();
    assert_eq!(groups.as_array().unwrap().len(), 2);
    for (index, group) in groups.as_array().unwrap().iter().enumerate() {
        let chunk = reader.metadata().row_group(index).column(0);
        let rows = group["rows"].as_u64().unwrap() as usize;
        let offset = group["tokens_offset"].as_u64().unwrap() as usize;
        // One data page and nothing else.
        let row_group = reader.get_row_group(index).unwrap();
        let mut pages = row_group.get_column_page_reader(0).unwrap();
        let page = pages.get_next_page().unwrap().unwrap();
        assert_eq!(
            (page.page_type(), page.encoding(), page.num_values() as usize),
            (PageType::DATA_PAGE, Encoding::PLAIN, rows)
        );
        assert!(pages.get_next_page().unwrap().is_none());
        // The formula: page_data_offset = end of the chunk - rows * width, and so in the metadata.
        let end = (chunk.data_page_offset() + chunk.compressed_size()) as usize;
        assert_eq!(offset, end - rows * 34);
        assert_eq!(&bytes[offset..end], &page.buffer()[..]);
        assert_eq!(group["blake3"]["tokens"], blake3::hash(&bytes[offset..end]).to_hex().as_str());
        // Row r is at offset + r * width.
        let first = group["images"][0].as_u64().unwrap() as usize;
        for row in 0..rows {
            let mut packed = [0; 34];
            pack(&tokens_of(job.grid, first + row / 2, (row % 2) as u32), 18, &mut packed);
            assert_eq!(&bytes[offset + row * 34..][..34], packed, "row {row} of group {index}");
        }
    }
}

#[test]
fn footers_carry_the_documented_entries() {
    let (_temp, dir) = small_cache();
    let reader = open(&dir);
    for (key, value) in [
        ("tokengrid.format_version", "1"),
        ("tokengrid.grid", "5x3"),
        ("tokengrid.bits", "18"),
        ("tokengrid.views", "2"),
        ("tokengrid.images", "[10,18]"),
        ("tokengrid.quarantined", "[]"),
    ] {
        assert_eq!(entry(&reader, key), value, "{key}");
    }
    let json = |key| serde_json::from_str::<Value>(&entry(&reader, key)).unwrap();
    assert_eq!(json("tokengrid.tokenizer")["fingerprint"], "0123abcd");
    assert_eq!(json("tokengrid.recipe"), small_job().recipe);
    let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["job"], entry(&reader, "tokengrid.job"));
    assert_eq!(manifest["shards"][1]["content_sum"], entry(&reader, "tokengrid.content_sum"));
    assert_eq!(manifest["shards"][1]["blake3"], blake3::hash(&fs::read(dir.join(SHARD)).unwrap()).to_hex().as_str());
}

#[test]
fn every_file_has_a_page_index() {
    let (_temp, dir) = small_cache();
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = reader.parse_and_finish(&fs::File::open(dir.join(SHARD)).unwrap()).unwrap();
    for group in metadata.row_groups() {
        for (index, column) in group.columns().iter().enumerate() {
            assert!(column.offset_index_offset().is_some(), "column {index}");
        }
        assert!(group.column(2).column_index_offset().is_some(), "keys can be searched by page");
    }
}

/// A shard that is written again is the same bytes, and the same job is the same folder.
#[test]
fn writing_is_deterministic() {
    let ((_a, first), (_b, second)) = (small_cache(), small_cache());
    assert_eq!(names(&first), names(&second));
    for name in names(&first) {
        assert_eq!(fs::read(first.join(&name)).unwrap(), fs::read(second.join(&name)).unwrap(), "{name}");
    }
    assert!(verify(&first, &mut |_, _| {}).unwrap().is_ok());
}

/// The content hash of the small cache must never change, unless the meaning of the rows does.
#[test]
fn pinned_content_hash() {
    let (_temp, dir) = small_cache();
    let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["content_hash"], "1575c50c63665cbfa99dba308b52f9d369836c071695684d3710c0d03247c8c6");
}
