//! To and from `.npy` and Parquet lists, without loss.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use std::fs;
use std::path::Path;
use std::process::Command;
use tokengrid_cache::{
    AtomicFile, CacheError, ImportOptions, OpenMode, TokenCache, export_npy, export_parquet, import_npy,
    import_npy_pairs, import_parquet, verify,
};

const RESUME: OpenMode = OpenMode::Resume;

fn npy(path: &Path, descr: &str, shape: &str, values: &[u8]) {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    text += &" ".repeat(63 - (text.len() + 10) % 64);
    text.push('\n');
    let bytes = [b"\x93NUMPY\x01\0".as_slice(), &(text.len() as u16).to_le_bytes(), text.as_bytes(), values].concat();
    fs::write(path, bytes).unwrap();
}

fn options(grid: (u32, u32)) -> ImportOptions {
    ImportOptions { grid, ..ImportOptions::default() }
}

fn check(dir: &Path) -> TokenCache {
    assert!(verify(dir, &mut |_, _| {}).unwrap().is_ok());
    TokenCache::open(dir).unwrap()
}

#[test]
fn arrays_are_exported_and_imported_again() {
    let (temp, dir) = small_cache();
    let cache = check(&dir);
    let out = temp.path().join("npy");
    export_npy(&cache, &out, RESUME).unwrap();
    assert_eq!(names(&out), [".tokengrid-export.json", "keys.txt", "labels.npy", "tokens.npy"]);
    let again = temp.path().join("again");
    let wanted = ImportOptions { views: 2, classes: small_job().classes, ..options((5, 3)) };
    let file = |name: &str| out.join(name);
    import_npy(&file("tokens.npy"), Some(&file("labels.npy")), Some(&file("keys.txt")), &wanted, &again, RESUME)
        .unwrap();
    let again = check(&again);
    assert_eq!((again.num_rows(), again.num_views(), again.grid()), (68, 2, cache.grid()));
    // As an editor may save it.
    let marked = temp.path().join("marked.txt");
    fs::write(&marked, format!("\u{FEFF}{}", fs::read_to_string(file("keys.txt")).unwrap())).unwrap();
    let other = temp.path().join("other");
    import_npy(&file("tokens.npy"), Some(&file("labels.npy")), Some(&marked), &wanted, &other, RESUME).unwrap();
    assert_eq!(check(&other).meta(0).unwrap().key, cache.meta(0).unwrap().key);
    for row in 0..68 {
        assert_eq!(again.packed_row(row), cache.packed_row(row));
        let (meta, original) = (again.meta(row).unwrap(), cache.meta(row).unwrap());
        assert_eq!((meta.key, meta.label, meta.view), (original.key, original.label, original.view));
    }
}

#[test]
fn parquet_lists_are_exported_and_imported_as_the_same_cache() {
    let (temp, dir) = small_cache();
    let cache = check(&dir);
    export_parquet(&cache, &temp.path().join("list"), RESUME).unwrap();
    let again = temp.path().join("again");
    let file = temp.path().join("list/tokens.parquet");
    import_parquet(&[file], &ImportOptions::default(), &again, RESUME).unwrap();
    let again = check(&again);
    assert_eq!(again.content_hash(), cache.content_hash(), "every column is restored");
    assert_eq!(
        (&again.manifest().tokenizer, &again.manifest().classes),
        (&cache.manifest().tokenizer, &cache.manifest().classes)
    );
}

/// Writers without dictionary support give the dictionary's offset as 0, or as the offset of the data.
#[test]
fn parquet_lists_with_a_dictionary_at_byte_0_are_imported() {
    let (temp, dir) = small_cache();
    let cache = check(&dir);
    export_parquet(&cache, &temp.path().join("list"), RESUME).unwrap();
    let file = temp.path().join("list/tokens.parquet");
    let bytes = fs::read(&file).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&fs::File::open(&file).unwrap()).unwrap();
    let mut builder = metadata.into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group| {
        let moved = |column: &ColumnChunkMetaData| {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let column = column.clone().into_builder().set_data_page_offset(start);
            column.set_dictionary_page_offset(Some(0)).build().unwrap()
        };
        let columns = group.columns().iter().map(moved).collect();
        group.into_builder().set_column_metadata(columns).build().unwrap()
    });
    let metadata = builder.set_row_groups(groups.collect()).build();
    let footer_bytes = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, &metadata).finish().unwrap();
    fs::write(&file, [&bytes[..bytes.len() - 8 - footer_bytes], &footer[..]].concat()).unwrap();
    let again = temp.path().join("again");
    import_parquet(&[file], &ImportOptions::default(), &again, RESUME).unwrap();
    assert_eq!(check(&again).content_hash(), cache.content_hash());
}

#[test]
fn a_plain_array_of_any_integer_type_is_imported() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let tokens: [i64; 8] = [0, 1, 2, 3, 200, 30, 31, 127];
    let as_bytes =
        |width: usize| tokens.iter().flat_map(|token| token.to_le_bytes()[..width].to_vec()).collect::<Vec<_>>();
    npy(&path("labels.npy"), "<i8", "(2,)", &[5i64.to_le_bytes(), (-1i64).to_le_bytes()].concat());
    for (descr, width) in [("<i2", 2), ("<u2", 2), ("<i4", 4), ("<u4", 4), ("<i8", 8), ("<u8", 8), ("|u1", 1)] {
        for shape in ["(2, 4)", "(2, 2, 2)"] {
            npy(&path("tokens.npy"), descr, shape, &as_bytes(width));
            let out = path(&format!("{width}{}{}", &descr[1..], shape.len()));
            import_npy(&path("tokens.npy"), Some(&path("labels.npy")), None, &options((2, 2)), &out, RESUME).unwrap();
            let cache = check(&out);
            assert_eq!((cache.grid().bits, cache.num_images()), (8, 2), "bits: the number that 200 needs");
            let mut row = [0; 4];
            cache.tokens_into(1, &mut row);
            assert_eq!(row, [200, 30, 31, 127]);
            assert_eq!((cache.label(0), cache.label(1)), (5, -1));
            assert_eq!(cache.meta(1).unwrap().key, "00000001");
        }
    }
    let refuse = |tokens: &str, labels: Option<&str>, wanted: &ImportOptions, expected: &str| {
        let labels = labels.map(path);
        let error = import_npy(&path(tokens), labels.as_deref(), None, wanted, &path("refused"), OpenMode::Overwrite);
        let error = error.unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should say {expected}");
        assert!(TokenCache::open(&path("refused")).is_err());
    };
    npy(&path("tokens.npy"), "<i4", "(2, 4)", &as_bytes(4));
    npy(&path("three.npy"), "<i8", "(3,)", &[0; 24]);
    npy(&path("negative.npy"), "<i4", "(1, 4)", &[255; 16]);
    refuse("tokens.npy", None, &options((2, 3)), "shape is [2, 4], expected [rows, 6]");
    refuse("tokens.npy", Some("three.npy"), &options((2, 2)), "number of labels is 3, expected 2");
    refuse(
        "tokens.npy",
        None,
        &ImportOptions { bits: Some(7), ..options((2, 2)) },
        "token is 200, expected 0 to 2^7 - 1",
    );
    refuse("negative.npy", None, &options((2, 2)), "token is -1");
    refuse("labels.npy", None, &options((2, 2)), "shape is [2]");
    refuse("nowhere.npy", None, &options((2, 2)), "nowhere.npy");
}

/// `codes/<i>.npy` of `[1, views, H * W]` and `labels/<i>.npy` of `[1]`, int64: 10 before 9 in the listing, after it here.
#[test]
fn a_folder_of_pairs_is_imported() {
    let temp = tempfile::tempdir().unwrap();
    let (codes, labels) = (temp.path().join("imagenet256_codes"), temp.path().join("imagenet256_labels"));
    fs::create_dir_all(&codes).unwrap();
    fs::create_dir_all(&labels).unwrap();
    for i in 0..12u32 {
        let values: Vec<u8> = (0..8).flat_map(|t| i64::from(i * 1000 + t).to_le_bytes()).collect();
        npy(&codes.join(format!("{i}.npy")), "<i8", "(1, 2, 4)", &values);
        npy(&labels.join(format!("{i}.npy")), "<i8", "(1,)", &i64::from(i % 3).to_le_bytes());
    }
    let out = temp.path().join("out");
    import_npy_pairs(&codes, &labels, &ImportOptions { bits: Some(14), ..options((2, 2)) }, &out, RESUME).unwrap();
    let cache = check(&out);
    assert_eq!((cache.num_images(), cache.num_views(), cache.grid().bits), (12, 2, 14));
    let mut row = [0; 4];
    cache.tokens_into(21, &mut row);
    assert_eq!(
        (row, cache.label(21), cache.meta(21).unwrap().key.as_str()),
        ([10_004, 10_005, 10_006, 10_007], 1, "10")
    );

    fs::remove_file(labels.join("7.npy")).unwrap();
    let error = import_npy_pairs(&codes, &labels, &options((2, 2)), &temp.path().join("x"), RESUME).unwrap_err();
    assert!(error.to_string().contains("7.npy"), "{error}");
    fs::remove_file(codes.join("7.npy")).unwrap();
    fs::remove_file(codes.join("5.npy")).unwrap();
    let error = import_npy_pairs(&codes, &labels, &options((2, 2)), &temp.path().join("x"), RESUME).unwrap_err();
    assert!(error.to_string().contains("labels/5.npy: file with its tokens is missing"), "{error}");
    fs::remove_file(labels.join("5.npy")).unwrap();
    let error = import_npy_pairs(&codes, &labels, &options((3, 3)), &temp.path().join("x"), RESUME).unwrap_err();
    assert!(error.to_string().contains("size is 8, expected a multiple of 9 tokens"), "{error}");
}

#[test]
fn a_damaged_parquet_file_is_an_error() {
    let (temp, dir) = small_cache();
    export_parquet(&check(&dir), &temp.path().join("list"), RESUME).unwrap();
    let path = temp.path().join("list/tokens.parquet");
    let bytes = fs::read(&path).unwrap();
    for cut in [3, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let result = import_parquet(std::slice::from_ref(&path), &options((5, 3)), &temp.path().join("x"), RESUME);
        assert!(matches!(result, Err(CacheError::ImportParquet { .. })), "{result:?}");
    }
    // A shard's grids are not lists.
    let shard = dir.join("shard-00000-00000.parquet");
    assert!(import_parquet(&[shard], &options((5, 3)), &temp.path().join("x"), RESUME).is_err());
}

/// numpy and pyarrow read what is exported, and what they write is imported.
#[test]
fn python_reads_and_writes_the_same() {
    let Some(python) = tokengrid_test_support::python_with("import numpy, pyarrow") else { return };
    let (temp, dir) = small_cache();
    let cache = check(&dir);
    export_npy(&cache, &temp.path().join("npy"), RESUME).unwrap();
    export_parquet(&cache, &temp.path().join("list"), RESUME).unwrap();
    let script = "
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
root = sys.argv[1]
tokens, labels = np.load(root + '/npy/tokens.npy'), np.load(root + '/npy/labels.npy')
keys = open(root + '/npy/keys.txt').read().splitlines()
table = pq.read_table(root + '/list/tokens.parquet')
assert tokens.dtype == np.int32 and tokens.shape == (68, 15) and labels.dtype == np.int64
assert (np.array(table['tokens'].to_pylist()) == tokens).all()
assert table['label'].to_pylist() == labels.tolist() and table['key'].to_pylist() == keys
assert table['view'].to_pylist() == [0, 1] * 34
np.save(root + '/theirs.npy', tokens.astype(np.uint64))
np.save(root + '/labels.npy', labels.astype(np.int16))
pq.write_table(pa.table({'tokens': tokens.tolist(), 'label': labels, 'key': keys}), root + '/theirs.parquet', row_group_size=7)
";
    let output = Command::new(python).arg("-c").arg(script).arg(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = |name: &str| temp.path().join(name);
    let wanted = ImportOptions { views: 2, ..options((5, 3)) };
    import_npy(&path("theirs.npy"), Some(&path("labels.npy")), None, &wanted, &path("a"), RESUME).unwrap();
    import_parquet(&[path("theirs.parquet")], &wanted, &path("b"), RESUME).unwrap();
    for (name, has_keys) in [("a", false), ("b", true)] {
        let theirs = check(&path(name));
        assert_eq!(theirs.num_rows(), 68);
        for row in 0..68 {
            assert_eq!((theirs.packed_row(row), theirs.label(row)), (cache.packed_row(row), cache.label(row)));
            assert!(!has_keys || theirs.meta(row).unwrap().key == cache.meta(row).unwrap().key);
        }
    }
}

/// An import continues only with the rows that it began with, and is removed only where none of its rows is durable.
#[test]
fn an_import_of_other_rows_is_refused_and_finished_parts_stay() {
    let temp = tempfile::tempdir().unwrap();
    let (path, out) = (temp.path().join("tokens.npy"), temp.path().join("out"));
    let rows = 20_000usize;
    let array = |change: usize, value: u8| {
        let mut values: Vec<u8> = (0..rows * 4).map(|i| (i % 127) as u8).collect();
        values[change] = value;
        npy(&path, "|u1", &format!("({rows}, 4)"), &values);
    };
    let import =
        |bits| import_npy(&path, None, None, &ImportOptions { bits: Some(bits), ..options((2, 2)) }, &out, RESUME);
    // The last row is invalid: the first row group is durable by then, and stays.
    array(rows * 4 - 1, 255);
    assert!(import(7).unwrap_err().to_string().contains("token is 255"));
    assert!(names(&out).iter().any(|name| name.starts_with(".part-")), "{:?}", names(&out));
    // The same file name, other rows in the existing part.
    array(5, 1);
    assert!(matches!(import(7), Err(CacheError::InputsDiffer { .. })));
    array(rows * 4 - 1, 3);
    let hash = import(7).unwrap().content_hash;
    assert_eq!(import(7).unwrap().content_hash, hash, "again: the same");
    array(5, 1);
    assert!(matches!(import(7), Err(CacheError::InputsDiffer { .. })), "other data must not count as imported");

    // Invalid from the first row on: no file is left that would block the next import.
    let out = temp.path().join("wrong");
    array(0, 255);
    let import =
        |bits| import_npy(&path, None, None, &ImportOptions { bits: Some(bits), ..options((2, 2)) }, &out, RESUME);
    assert!(import(7).is_err());
    assert!(!out.exists());
    import(8).unwrap();
    // A refused second import leaves the first one's folder alone.
    let before = names(&out);
    assert!(import(9).is_err());
    assert_eq!(names(&out), before);
}

#[test]
fn views_and_keys_that_do_not_fit_are_reported() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    npy(&path("tokens.npy"), "|u1", "(3, 2, 4)", &[1; 24]);
    let import = |keys: Option<&str>, views| {
        let keys = keys.map(path);
        let wanted = ImportOptions { views, ..options((2, 2)) };
        import_npy(&path("tokens.npy"), None, keys.as_deref(), &wanted, &path("out"), RESUME).unwrap_err().to_string()
    };
    assert!(import(None, 1).contains("--views 2"), "{}", import(None, 1));
    fs::write(path("long.txt"), "a".repeat(100_000_000)).unwrap();
    let message = import(Some("long.txt"), 2);
    assert!(message.len() < 500 && message.contains("line 1"), "{}", &message[..200.min(message.len())]);
    fs::write(path("twice.txt"), "a\nb\na\n").unwrap();
    let message = import(Some("twice.txt"), 2);
    assert!(message.contains("`a` in line 3") && message.contains("line 1"), "{message}");
    assert!(!path("out").exists());
}

/// The next export removes the temporary files of a killed one.
#[test]
fn an_export_removes_what_a_killed_one_left() {
    let (temp, dir) = small_cache();
    let out = temp.path().join("npy");
    fs::create_dir(&out).unwrap();
    for name in ["tokens.npy", "tokens.parquet"] {
        let file = AtomicFile::create(&out.join(name)).unwrap();
        let temporary = names(&out).pop().unwrap();
        drop(file);
        fs::write(out.join(temporary), "half").unwrap();
    }
    export_npy(&check(&dir), &out, RESUME).unwrap();
    assert_eq!(names(&out), [".tokengrid-export.json", "keys.txt", "labels.npy", "tokens.npy"]);
}

/// Only files that an export wrote are replaced; no other file is written into the folder of a cache.
#[test]
fn an_export_replaces_no_file_that_it_did_not_write() {
    let (temp, dir) = small_cache();
    let cache = check(&dir);
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    for name in ["keys.txt", "tokens.parquet"] {
        fs::write(out.join(name), "mine").unwrap();
    }
    let refused = |result: Result<(), CacheError>| {
        assert!(matches!(&result, Err(CacheError::ExportTarget { .. })), "{result:?}");
    };
    refused(export_npy(&cache, &out, RESUME));
    refused(export_parquet(&cache, &out, RESUME));
    assert_eq!(names(&out), ["keys.txt", "tokens.parquet"], "nothing else is left");
    assert_eq!(fs::read(out.join("keys.txt")).unwrap(), b"mine");

    export_npy(&cache, &out, OpenMode::Overwrite).unwrap();
    export_npy(&cache, &out, RESUME).unwrap();
    refused(export_parquet(&cache, &out, RESUME));
    assert_eq!(fs::read(out.join("tokens.parquet")).unwrap(), b"mine");
    // A file that an export wrote and a user changed counts as the user's.
    fs::write(out.join("labels.npy"), "mine").unwrap();
    refused(export_npy(&cache, &out, RESUME));

    let (before, into_itself) = (names(&dir), export_npy(&cache, &dir, OpenMode::Overwrite));
    assert!(matches!(into_itself, Err(CacheError::ExportIntoCache { .. })), "{into_itself:?}");
    assert_eq!(names(&dir), before);
}

/// Two exports into one folder: the second one is refused, or runs after the first.
#[test]
fn exports_into_one_folder_do_not_mix() {
    let (temp, dir) = small_cache();
    let out = temp.path().join("out");
    let results: Vec<_> = std::thread::scope(|scope| {
        let export = || {
            let cache = TokenCache::open(&dir).unwrap();
            (0..20).map(|_| export_npy(&cache, &out, RESUME)).collect::<Vec<_>>()
        };
        let threads = [scope.spawn(export), scope.spawn(export), scope.spawn(export)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().any(Result::is_ok));
    for result in results {
        assert!(matches!(&result, Ok(()) | Err(CacheError::ExportInUse { .. })), "{result:?}");
    }
    assert_eq!(names(&out), [".tokengrid-export.json", "keys.txt", "labels.npy", "tokens.npy"]);
    export_npy(&check(&dir), &out, RESUME).unwrap();
}

/// A file under another path is the same input.
#[test]
fn an_import_is_identified_by_its_content() {
    let temp = tempfile::tempdir().unwrap();
    let (path, out) = (temp.path().join("tokens.npy"), temp.path().join("out"));
    npy(&path, "|u1", "(2, 4)", &[1; 8]);
    let import = |path: &Path, mode| import_npy(path, None, None, &options((2, 2)), &out, mode);
    let hash = import(&path, RESUME).unwrap().content_hash;
    let moved = temp.path().join("moved.npy");
    fs::copy(&path, &moved).unwrap();
    for path in [temp.path().join("./tokens.npy"), temp.path().join("x/../tokens.npy"), moved.clone()] {
        fs::create_dir_all(temp.path().join("x")).unwrap();
        assert_eq!(import(&path, RESUME).unwrap().content_hash, hash, "{}", path.display());
    }
    npy(&moved, "|u1", "(2, 4)", &[1, 1, 1, 1, 1, 1, 1, 0]);
    assert!(matches!(import(&moved, RESUME), Err(CacheError::InputsDiffer { .. })));
}
