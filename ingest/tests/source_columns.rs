//! Parquet: which columns are taken, what labels may be, and what is refused by name.

mod containers;

use ::parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use containers::table::{Values, image, pictures, text, write, write_with};
use containers::*;
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

/// A file of three pictures with a column of labels.
fn labelled(kind: &str, labels: Values) -> (TempDir, PathBuf) {
    let root = folder();
    let path = root.path().join("a.parquet");
    let schema = format!("{} optional {kind};", image("image"));
    write(&path, &schema, vec![pictures(0, 3), text(&["0.jpg", "1.jpg", "2.jpg"]), labels], None);
    (root, path)
}

fn labels(source: &Source) -> Vec<i32> {
    (0..source.len()).map(|row| source.label(row)).collect()
}

fn open_columns(path: &Path, image: Option<&str>, label: Option<&str>) -> Result<Source, IngestError> {
    let (image_column, label_column) = (image.map(str::to_owned), label.map(str::to_owned));
    Source::open(path, &SourceOptions { image_column, label_column, ..SourceOptions::default() })
}

#[test]
fn labels_of_every_type_are_taken_or_refused_by_name() {
    let some = |values: &[i64]| values.iter().map(|value| Some(*value)).collect::<Vec<_>>();
    let (_root, path) = labelled("int64 label", Values::Int64(some(&[7, -1, 0])));
    assert_eq!(labels(&open(&path)), [7, -1, 0]);
    let (_root, path) = labelled("int32 Label", Values::Int32(vec![Some(1), None, Some(2)]));
    assert_eq!(labels(&open(&path)), [1, -1, 2]);
    let (_root, path) = labelled("double label", Values::Double(vec![Some(1.0), None, Some(f64::NAN)]));
    assert_eq!(labels(&open(&path)), [1, -1, -1]);
    let (_root, path) = labelled("boolean label", Values::Bool(vec![Some(true), Some(false), None]));
    assert_eq!(labels(&open(&path)), [1, 0, -1]);
    let (_root, path) = labelled("binary label (STRING)", text(&["dog", "cat", "dog"]));
    assert_eq!(
        (labels(&open(&path)), open(&path).classes()),
        (vec![1, 0, 1], &["cat".to_owned(), "dog".to_owned()][..])
    );
    let (_root, path) = labelled("binary label", text(&["10", "9", ""]));
    assert_eq!((labels(&open(&path)), open(&path).classes().len()), (vec![10, 9, -1], 0));

    let (_root, path) = labelled("double label", Values::Double(vec![Some(0.5), None, Some(1.0)]));
    let message = error(&path);
    assert!(message.contains("'label' (double)") && message.contains("0.5"), "{message}");
    let (_root, path) = labelled("int64 label", Values::Int64(some(&[1, 5_000_000_000, 2])));
    let message = error(&path);
    assert!(
        message.contains("row 1") && message.contains("'label' (int64)") && message.contains("5000000000"),
        "{message}"
    );
    let (_root, path) = labelled("int64 label", Values::Int64(some(&[1, -7, 2])));
    assert!(error(&path).contains("has -7"), "{}", error(&path));
    let (_root, path) = labelled("int32 label (INTEGER(32,false))", Values::Int32(vec![Some(1), Some(-2), None]));
    assert!(error(&path).contains("row 1") && error(&path).contains("has 4294967294"), "{}", error(&path));
    let (_root, path) = labelled("int64 label (INTEGER(64,false))", Values::Int64(some(&[1, 2, -1])));
    assert!(error(&path).contains("row 2") && error(&path).contains("has 18446744073709551615"), "{}", error(&path));
    let (_root, path) = labelled("binary label (STRING)", text(&["10", "n/a", "9"]));
    assert!(error(&path).contains("'10'") && error(&path).contains("'n/a'"), "{}", error(&path));
    let (_root, path) = labelled("binary label (STRING)", text(&["10", "-5", "9"]));
    assert!(error(&path).contains("row 1") && error(&path).contains("-5"), "{}", error(&path));
    let (_root, path) = labelled("int64 label (TIMESTAMP(MILLIS,true))", Values::Int64(some(&[1, 2, 3])));
    let message = error(&path);
    assert!(message.contains("'label' (time)") && message.contains("--label-column none"), "{message}");
    assert_eq!(labels(&open_columns(&path, None, Some("none")).expect("no labels")), [-1, -1, -1]);
    let (_root, path) = labelled("binary label (STRING)", text(&["a", &"long".repeat(100), "b"]));
    let message = error(&path);
    assert!(message.contains("row 1") && message.contains("400 bytes"), "{message}");
}

#[test]
fn text_labels_win_over_folders_in_paths() {
    let root = folder();
    let path = root.path().join("a.parquet");
    let schema = format!("{} optional binary label (STRING);", image("image"));
    let columns = vec![pictures(0, 3), text(&["p/1.jpg", "p/2.jpg", "q/1.jpg"]), text(&["x", "y", "x"])];
    write(&path, &schema, columns, None);
    let source = open(&path);
    assert_eq!((labels(&source), source.classes()), (vec![0, 1, 0], &["x".to_owned(), "y".to_owned()][..]));
}

#[test]
fn classes_of_several_files_must_be_the_same() {
    let root = folder();
    let file = |name: &str, names: Option<&[&str]>| {
        let features = names.map(|names| json!({"label": {"names": names, "_type": "ClassLabel"}}));
        let path = root.path().join(name);
        let schema = format!("{} optional int64 label;", image("image"));
        let columns = vec![pictures(0, 1), text(&[&format!("{name}.jpg")]), Values::Int64(vec![Some(1)])];
        write(&path, &schema, columns, features);
    };
    file("0.parquet", Some(&["cat", "dog"]));
    file("1.parquet", None);
    file("2.parquet", Some(&["cat", "dog", "emu"]));
    assert_eq!(open(root.path()).classes(), ["cat", "dog", "emu"]);
    file("1.parquet", Some(&["dog", "cat"]));
    let message = error(root.path());
    assert!(message.contains("1.parquet: class 0 is called 'dog' here and 'cat'"), "{message}");
    // Text is text in every file: ranks are those of all names.
    let text_file = |name: &str, label: &str| {
        let path = root.path().join("text").join(name);
        std::fs::create_dir_all(root.path().join("text")).expect("folder");
        let schema = format!("{} optional binary label (STRING);", image("image"));
        write(&path, &schema, vec![pictures(0, 1), text(&[&format!("{name}.jpg")]), text(&[label])], None);
    };
    text_file("0.parquet", "b");
    text_file("1.parquet", "a");
    let source = open(&root.path().join("text"));
    assert_eq!((labels(&source), source.classes()), (vec![1, 0], &["a".to_owned(), "b".to_owned()][..]));
    let columns = vec![pictures(0, 1), text(&["9.jpg"]), Values::Int64(vec![Some(1)])];
    write(&root.path().join("text/2.parquet"), &format!("{} optional int64 label;", image("image")), columns, None);
    let message = error(&root.path().join("text"));
    assert!(message.contains("class indices") && message.contains("'b' (of '0.parquet.jpg')"), "{message}");
}

#[test]
fn the_column_of_pictures_is_the_one_with_their_name() {
    let root = folder();
    let path = root.path().join("a.parquet");
    let two = |first: &str, second: &str| {
        let schema = format!("{} {}", image(first), image(second));
        let names = || text(&["0.jpg", "1.jpg"]);
        write(&path, &schema, vec![pictures(50, 2), names(), pictures(0, 2), names()], None);
    };
    let first_byte = |source: &Source| good(source)[0].bytes[0];
    for (first, second) in [("annotation", "img"), ("mask", "Image"), ("img", "image"), ("depth", "photo")] {
        two(first, second);
        assert_eq!(first_byte(&open(&path)), 0, "{first} {second}");
        assert_eq!(first_byte(&open_columns(&path, Some(first), None).expect(first)), 50);
    }
    two("left", "right");
    let message = error(&path);
    assert!(message.contains("left, right") && message.contains("--image-column left"), "{message}");
    assert_eq!(first_byte(&open_columns(&path, Some("right"), None).expect("right")), 0);
    let message = open_columns(&path, Some("up"), None).expect_err("no such column").to_string();
    assert!(message.contains("'up'") && message.contains("'left.bytes' (binary)"), "{message}");
    write(&path, "optional binary jpg; optional binary caption (STRING);", vec![pictures(7, 1), text(&["a"])], None);
    assert_eq!(first_byte(&open(&path)), 7);
    let features = json!({"scan": {"_type": "Image"}, "id": {"_type": "Value"}});
    let schema = "optional binary scan; optional binary other;";
    write(&path, schema, vec![pictures(7, 1), pictures(8, 1)], Some(features));
    assert_eq!(first_byte(&open(&path)), 7, "the features say which");
}

#[test]
fn other_columns_are_offered_as_labels() {
    let root = folder();
    let path = root.path().join("a.parquet");
    let schema =
        format!("{} optional int64 fine_label; optional int64 coarse_label; optional int64 size;", image("img"));
    let ints = |value| Values::Int64(vec![Some(value)]);
    let features = json!({"fine_label": {"names": ["a", "b", "c", "d"]}});
    write(&path, &schema, vec![pictures(0, 1), text(&["0.jpg"]), ints(3), ints(1), ints(9)], Some(features));
    let source = open(&path);
    assert_eq!(labels(&source), [-1]);
    let note = &source.notes()[0];
    assert!(note.contains("'fine_label' (int64), 'coarse_label' (int64)"), "{note}");
    assert!(note.contains("--label-column fine_label") && !note.contains("size"), "{note}");
    let source = open_columns(&path, None, Some("fine_label")).expect("labels");
    assert_eq!((labels(&source), source.classes().len(), source.notes().len()), (vec![3], 4, 0));
    let message = open_columns(&path, None, Some("lable")).expect_err("no such column").to_string();
    assert!(message.contains("'lable'") && message.contains("'fine_label' (int64)"), "{message}");
    let jpg = write_image(root.path());
    assert!(matches!(open_columns(&jpg, Some("image"), None), Err(IngestError::NoColumns { .. })));
    assert_eq!(open_columns(&jpg, None, Some("none")).expect("none is always right").len(), 1);
}

fn write_image(root: &Path) -> PathBuf {
    containers::write(root, "flat/a.jpg", "x");
    root.join("flat")
}

#[test]
fn pictures_that_are_elsewhere_are_not_damage() {
    let root = folder();
    let path = root.path().join("a.parquet");
    let names: Vec<String> = (0..1000).map(|i| format!("{i:04}.jpg")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for statistics in [EnabledStatistics::None, EnabledStatistics::Chunk] {
        let properties = || WriterProperties::builder().set_statistics_enabled(statistics).build();
        let columns = vec![Values::Bytes(vec![None; 1000]), text(&names)];
        write_with(&path, &image("image"), columns, None, properties());
        let message = error(&path);
        assert!(message.contains("'image.bytes'") && message.contains("1000 rows"), "{message}");
        assert!(message.contains("'0000.jpg'") && !message.contains("damaged"), "{message}");
        // A row that has one makes the others bad rows.
        let mut bytes = vec![None; 1000];
        bytes[500] = Some(vec![1]);
        write_with(&path, &image("image"), vec![Values::Bytes(bytes), text(&names)], None, properties());
        assert_eq!((open(&path).len(), good(&open(&path)).len()), (1000, 1));
    }
}

#[test]
fn one_picture_many_times_is_no_damage() {
    let root = folder();
    let path = root.path().join("a.parquet");
    write(&path, "optional binary image;", vec![Values::Bytes(vec![Some(vec![5; 100]); 20_000])], None);
    assert!(path.metadata().expect("file").len() < 20_000, "the file has fewer bytes than rows");
    let source = open(&path);
    assert_eq!((source.len(), source.damaged()), (20_000, 0));
    let mut bytes = Vec::new();
    for row in [0, 1, 10_000, 19_999] {
        source.read(row, &mut bytes).expect("readable");
        assert_eq!(bytes, [5; 100]);
    }
}

#[test]
fn tables_beside_tars_are_passed_over() {
    let root = folder();
    for shard in 0..2 {
        let members = [("jpg", "x"), ("txt", "words"), ("json", "{\"status\": \"success\"}")];
        let members = members.map(|(end, text)| (format!("{shard:05}0000.{end}"), text.as_bytes()));
        containers::write(root.path(), &format!("{shard:05}.tar"), containers::tar::archive_of(members));
        let path = root.path().join(format!("{shard:05}.parquet"));
        write(&path, "optional binary url (STRING);", vec![text(&["http://x/y.jpg"])], None);
        containers::write(root.path(), &format!("{shard:05}_stats.json"), "{}");
    }
    let source = open(root.path());
    assert_eq!(keys(&source), ["000000000.jpg", "000010000.jpg"]);
    assert_eq!((source.kind(), source.damaged()), ("WebDataset", 0));
    write(&root.path().join("9.parquet"), "optional binary image;", vec![pictures(0, 1)], None);
    assert!(error(root.path()).contains("different kinds"), "this one holds pictures");
}

/// Writers that know of no dictionary give its place as 0, or the place of the data as that of the dictionary.
#[test]
fn a_dictionary_at_byte_0_is_none() {
    for with_dictionary in [true, false] {
        let root = folder();
        let path = root.path().join("a.parquet");
        let schema = format!("{} optional int64 label;", image("image"));
        let columns = vec![pictures(0, 2), text(&["0.jpg", "1.jpg"]), Values::Int64(vec![Some(3), Some(4)])];
        let properties = WriterProperties::builder().set_dictionary_enabled(with_dictionary).build();
        write_with(&path, &schema, columns, None, properties);
        move_dictionaries_to_0(&path);
        let source = open(&path);
        assert_eq!((labels(&source), good(&source).len()), (vec![3, 4], 2), "{with_dictionary}");
    }
}

fn move_dictionaries_to_0(path: &Path) {
    let bytes = std::fs::read(path).expect("file");
    let file = std::fs::File::open(path).expect("file");
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).expect("metadata");
    let mut builder = metadata.into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group| {
        let columns = group.columns().iter().cloned().map(|column| {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let moved = column.into_builder().set_data_page_offset(start).set_dictionary_page_offset(Some(0));
            moved.build().expect("column")
        });
        let columns = columns.collect();
        group.into_builder().set_column_metadata(columns).build().expect("row group")
    });
    let metadata = builder.set_row_groups(groups.collect()).build();
    let footer_bytes = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes"));
    let mut moved = bytes[..bytes.len() - 8 - footer_bytes as usize].to_vec();
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, &metadata).finish().expect("footer");
    moved.extend(footer);
    std::fs::write(path, moved).expect("file");
}
