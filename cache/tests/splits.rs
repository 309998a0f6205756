//! The column `split`: in every shard of a cache with splits, and in no other; repaired and made again as it was.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use parquet::basic::{ConvertedType, Repetition, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use parquet::record::RowAccessor;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokengrid_cache::{
    Encoded, Manifest, MergeInput, OpenMode, RepairReport, Row, Selection, Split, TokenCache, merge, repair, subset,
    verify,
};

/// A cache of 20 rows in the splits `train` and `val`, in the format before the column existed.
const WITHOUT_COLUMN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/splits_without_column");

/// A separate cache with all rows of a split.
fn part(of: &Path, split: &str, out: &Path) -> PathBuf {
    subset(of, out, &Selection { split: Some(split.into()), ..Selection::default() }, OpenMode::Resume).unwrap();
    out.to_owned()
}

/// The same rows in a cache of the current format.
fn with_column(temp: &Path) -> PathBuf {
    let (old, out) = (Path::new(WITHOUT_COLUMN), temp.join("with-column"));
    let named = |split: &str| MergeInput { dir: part(old, split, &temp.join(split)), split: Some(split.into()) };
    merge(&out, &[named("train"), named("val")], OpenMode::Resume).unwrap();
    out
}

fn shards(dir: &Path) -> Vec<SerializedFileReader<fs::File>> {
    let shards = names(dir).into_iter().filter(|name| name.ends_with(".parquet"));
    shards.map(|name| SerializedFileReader::new(fs::File::open(dir.join(name)).unwrap()).unwrap()).collect()
}

/// Key and split of every row, by a plain Parquet reader.
fn splits_by_key(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for shard in shards(dir) {
        for row in shard.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let column = |name: &str| row.get_column_iter().position(|(column, _)| column == name).unwrap();
            let text = |name: &str| row.get_string(column(name)).unwrap().clone();
            found.insert(text("key"), text("split"));
        }
    }
    found
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    names(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

/// Repairs `dir` with the rows of an intact copy.
fn repair_from(dir: &Path, copy: &Path) -> RepairReport {
    let copy = TokenCache::open(copy).unwrap();
    repair(dir, None, &mut |images, deliver| {
        let is_wanted = |image| images.binary_search(&image).is_ok();
        copy.visit_images(0..copy.num_images(), &is_wanted, &mut |image, rows| deliver(image, Encoded::Rows(rows)))?;
        Ok(())
    })
    .unwrap()
}

#[test]
fn every_row_names_its_split() {
    let temp = tempfile::tempdir().unwrap();
    let dir = with_column(temp.path());
    assert!(verify(&dir, &mut |_, _| {}).unwrap().is_ok());
    let cache = TokenCache::open(&dir).unwrap();
    let mut expected = BTreeMap::new();
    for (split, images) in cache.splits() {
        images.for_each(|image| _ = expected.insert(cache.meta(image).unwrap().key, split.to_owned()));
    }
    assert_eq!(expected.len(), 20);
    assert_eq!(splits_by_key(&dir), expected);
    // The column is not part of a row's identity.
    assert_eq!(cache.content_hash(), Manifest::read(Path::new(WITHOUT_COLUMN)).unwrap().content_hash);
    assert_eq!(cache.recompute_content_hash().unwrap(), cache.content_hash());

    let shard = &shards(&dir)[0];
    let schema = shard.metadata().file_metadata().schema_descr();
    let column = schema.column(7);
    assert_eq!((schema.num_columns(), column.name(), column.physical_type()), (8, "split", Type::BYTE_ARRAY));
    assert_eq!(column.converted_type(), ConvertedType::UTF8);
    assert_eq!(column.self_type().get_basic_info().repetition(), Repetition::REQUIRED);
    // Readers skip the row groups of other splits by these.
    let ranges = shard.metadata().row_groups().iter().map(|group| match group.column(7).statistics() {
        Some(Statistics::ByteArray(found)) => [found.min_opt(), found.max_opt()].map(|text| text.unwrap().clone()),
        other => panic!("{other:?}"),
    });
    let ranges: Vec<_> = ranges.map(|range| range.map(|text| text.as_utf8().unwrap().to_owned())).collect();
    assert_eq!(ranges, [["train", "train"], ["val", "val"]]);
}

#[test]
fn caches_without_splits_have_no_such_column() {
    let temp = tempfile::tempdir().unwrap();
    let dir = part(Path::new(WITHOUT_COLUMN), "train", &temp.path().join("train"));
    assert_eq!(shards(&dir)[0].metadata().file_metadata().schema_descr().num_columns(), 7);
    assert!(!fs::read_to_string(dir.join("manifest.json")).unwrap().contains("more_columns"));
    // A part of a cache with splits names the splits that it contains.
    let few = temp.path().join("few");
    subset(&with_column(temp.path()), &few, &Selection { limit: Some(14), ..Selection::default() }, OpenMode::Resume)
        .unwrap();
    let splits: Vec<_> = splits_by_key(&few).into_values().collect();
    let count = |name: &str| splits.iter().filter(|split| *split == name).count();
    assert_eq!((count("train"), count("val")), (12, 2));
}

#[test]
fn both_kinds_are_repaired_to_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let old = temp.path().join("old");
    copy_dir(Path::new(WITHOUT_COLUMN), &old);
    for dir in [old, with_column(temp.path())] {
        let copy = dir.with_extension("copy");
        copy_dir(&dir, &copy);
        let good = contents(&dir);
        let shard = dir.join("shard-00000-00000.parquet");
        let bytes = fs::read(&shard).unwrap();
        let flip = |place: usize| {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x10;
            Some(bytes)
        };
        let groups = &Manifest::read(&dir).unwrap().shards[0].row_groups;
        let last_of = |group: usize| (groups[group].range.offset + groups[group].range.bytes) as usize - 1;
        let damages = [
            ("tokens of a row group", flip(100), 1),
            ("last column of a row group", flip(last_of(0)), 1),
            ("last column of the other", flip(last_of(1)), 1),
            ("footer", flip(bytes.len() - 20), 2),
            ("cut", Some(bytes[..bytes.len() / 2].to_vec()), 2),
            ("missing", None, 2),
        ];
        for (what, damaged, groups_encoded) in damages {
            match damaged {
                Some(bytes) => fs::write(&shard, bytes).unwrap(),
                None => fs::remove_file(&shard).unwrap(),
            }
            assert!(!verify(&dir, &mut |_, _| {}).unwrap().is_ok(), "{what}");
            let report = repair_from(&dir, &copy);
            assert_eq!((report.is_ok(), report.row_groups_encoded), (true, groups_encoded), "{what}");
            assert_eq!(contents(&dir), good, "{what}");
        }
        // The manifest says so too when it is made again from the shards.
        fs::remove_file(dir.join("manifest.json")).unwrap();
        assert!(repair_from(&dir, &copy).manifest_rebuilt);
        assert_eq!(contents(&dir), good);
    }
}

#[test]
fn caches_from_before_the_column_are_read_and_gain_it_when_they_grow() {
    let old = Path::new(WITHOUT_COLUMN);
    assert!(verify(old, &mut |_, _| {}).unwrap().is_ok());
    let cache = TokenCache::open(old).unwrap();
    assert_eq!(cache.recompute_content_hash().unwrap(), cache.content_hash());
    assert_eq!((cache.split_images("train"), cache.split_images("val")), (Some(0..12), Some(12..20)));
    assert_eq!(shards(old)[0].metadata().file_metadata().schema_descr().num_columns(), 7);

    let temp = tempfile::tempdir().unwrap();
    let (more, out) = (temp.path().join("more"), temp.path().join("out"));
    let mut job = tokengrid_cache::JobSpec::of(cache.manifest()).unwrap();
    job.source.images = 1;
    job.splits = vec![Split { name: "test".into(), images: [0, 1] }];
    let mut writer = tokengrid_cache::CacheWriter::open(&more, job, OpenMode::Resume).unwrap();
    let row = Row { tokens: &[7; 16], label: 0, key: "new", view: 0, crop_x: 0, crop_y: 0, flip: false };
    writer.push_image(0, &[row]).unwrap();
    writer.finish().unwrap();
    merge(&out, &[MergeInput::new(old), MergeInput::new(&more)], OpenMode::Resume).unwrap();
    let splits = splits_by_key(&out);
    assert_eq!((splits.len(), splits["new"].as_str()), (21, "test"));
    assert_eq!(splits.values().filter(|split| *split == "train").count(), 12);
}

#[test]
fn a_manifest_that_declares_the_column_for_shards_without_it_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    copy_dir(Path::new(WITHOUT_COLUMN), &dir);
    let sum = &Manifest::read(&dir).unwrap().shards[0].content_sum;
    let [from, to] =
        ["", ",\n      \"more_columns\": [\"split\"]"].map(|more| format!("\"content_sum\": \"{sum}\"{more}"));
    edit_manifest(&dir, &from, &to);
    let error = TokenCache::open(&dir).unwrap_err().to_string();
    assert!(error.contains("more_columns"), "{error}");
    assert!(!verify(&dir, &mut |_, _| {}).unwrap().is_ok());
}
