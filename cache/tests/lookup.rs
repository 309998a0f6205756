//! A few rows of a large cache: found by the index beside it, or without it, and always the same ones.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{names, run, scramble, small_job};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{
    CacheError, CacheWriter, ClassIndex, GridSpec, JobSpec, KEY_INDEX_FILE, OpenMode, Row, RowFilter, RowReader,
    TokenCache, find_rows, remove_cache, verify,
};

static NEVER: AtomicBool = AtomicBool::new(false);

const IMAGES: usize = 60_000;

fn key_of(image: usize) -> String {
    let class = image / 650;
    format!("n{class:08}/n{class:08}_{}.JPEG", scramble(image as u64) % 20_000)
}

fn label_of(image: usize) -> i32 {
    // Long runs, and classes without any order.
    if image < IMAGES / 2 { (image / 650) as i32 } else { (scramble(image as u64) % 92) as i32 - 1 }
}

fn large_cache() -> (tempfile::TempDir, PathBuf) {
    large_cache_from(0)
}

/// 60,000 images of one token, two views, with keys and labels of images from `first` on.
fn large_cache_from(first: usize) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let mut job = JobSpec::new(GridSpec { height: 1, width: 1, bits: 18 }, IMAGES, 2);
    (job.rows_per_group, job.groups_per_shard) = (8192, 3);
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for image in 0..IMAGES {
        let (key, label) = (key_of(first + image), label_of(first + image));
        let tokens = [0, 1].map(|view| [scramble((image * 2 + view) as u64) as u32 & 0x3FFFF]);
        let row = |view: u32| {
            let tokens = &tokens[view as usize];
            Row { tokens, label, key: &key, view, crop_x: image as i32 % 32, crop_y: 0, flip: view == 1 }
        };
        writer.push_image(image, &[row(0), row(1)]).unwrap();
    }
    assert!(writer.finish().unwrap().published);
    (temp, dir)
}

fn filters() -> Vec<RowFilter> {
    let key = |text: &str| RowFilter { key: Some(text.into()), ..RowFilter::default() };
    let class = |label: i32| RowFilter { label: Some(label), ..RowFilter::default() };
    vec![
        key(&key_of(0)),
        key(&key_of(IMAGES - 1)),
        key(&key_of(31_003)[..15]),
        key(&key_of(12_345)[10..]),
        key("_1234"),
        key("00007/n0"),
        key("9.JPE"),
        key("7"),
        key("/n"),
        key(""),
        key("no such key"),
        class(-1),
        class(0),
        class(17),
        class(5000),
        RowFilter { view: Some(1), key: Some("_77".into()), ..class(80) },
        RowFilter { shard: Some(2), ..key("n0000") },
        RowFilter { shard: Some(1), ..class(40) },
        RowFilter { view: Some(1), ..RowFilter::default() },
        RowFilter { view: Some(2), ..key("1") },
        RowFilter { shard: Some(99), ..RowFilter::default() },
    ]
}

/// What looking at every image finds.
fn expected(cache: &TokenCache, filter: &RowFilter) -> Vec<usize> {
    let images = filter.shard.map_or(0..IMAGES, |shard| cache.shard_images(shard));
    let is_wanted = |image: &usize| {
        filter.label.is_none_or(|label| label_of(*image) == label)
            && filter.key.as_ref().is_none_or(|text| key_of(*image).contains(text))
    };
    let views = (0..2).filter(|view| filter.view.is_none_or(|wanted| wanted == *view as u32));
    images.filter(is_wanted).flat_map(|image| views.clone().map(move |view| 2 * image + view)).collect()
}

#[track_caller]
fn check_all(dir: &Path) {
    let (cache, reader) = (TokenCache::open(dir).unwrap(), RowReader::open(dir).unwrap());
    let index = ClassIndex::of(&cache);
    for filter in filters() {
        let expected = expected(&cache, &filter);
        let found = find_rows(&cache, &index, &filter, &NEVER).unwrap();
        let rows: Vec<_> = (0..found.len()).filter_map(|place| found.get(place)).collect();
        assert!(rows == expected, "{filter:?}: {} rows, expected {}", rows.len(), expected.len());
        if let Some(found) = reader.find(&filter, &NEVER).unwrap() {
            let rows: Vec<_> = (0..found.len()).filter_map(|place| found.get(place)).collect();
            assert!(rows == expected, "by the index, {filter:?}: {} rows, expected {}", rows.len(), expected.len());
        }
    }
}

#[test]
fn rows_are_found_with_an_index_without_one_and_with_a_damaged_one() {
    let (_temp, dir) = large_cache();
    let path = dir.join(KEY_INDEX_FILE);
    let written = fs::read(&path).expect("made when the cache was published");
    assert!(written.len() < 16 * IMAGES, "{} bytes", written.len());
    let content_hash = TokenCache::open(&dir).unwrap().content_hash().to_owned();
    assert!(verify(&dir, &mut |_, _| {}).unwrap().is_ok());
    check_all(&dir);

    // Without it, it is made again by the first search: the same bytes.
    fs::remove_file(&path).unwrap();
    assert!(RowReader::open(&dir).unwrap().find(&filters()[0], &NEVER).unwrap().is_none());
    check_all(&dir);
    assert!(fs::read(&path).unwrap() == written, "made of the cache alone");

    // One altered byte anywhere: nothing wrong is found.
    for place in (0..16).map(|part| part * (written.len() - 1) / 15) {
        let mut altered = written.clone();
        altered[place] ^= 1 << (place % 8);
        fs::write(&path, &altered).unwrap();
        check_all(&dir);
    }
    for length in [0, 100, written.len() / 2, written.len() - 1] {
        fs::write(&path, &written[..length]).unwrap();
        check_all(&dir);
    }
    assert_eq!(TokenCache::open(&dir).unwrap().content_hash(), content_hash);
    assert!(verify(&dir, &mut |_, _| {}).unwrap().is_ok());
}

#[test]
fn an_index_of_another_cache_is_not_believed() {
    let (_temp, dir) = large_cache();
    let (_other_temp, other) = large_cache_from(100);
    fs::copy(other.join(KEY_INDEX_FILE), dir.join(KEY_INDEX_FILE)).unwrap();
    assert!(RowReader::open(&dir).unwrap().find(&filters()[0], &NEVER).unwrap().is_none());
    check_all(&dir);
}

#[test]
fn a_reader_tells_of_rows_what_the_cache_does() {
    let (_temp, dir) = large_cache();
    let (cache, reader) = (TokenCache::open(&dir).unwrap(), RowReader::open(&dir).unwrap());
    assert_eq!((reader.num_rows(), reader.grid(), reader.splits()), (2 * IMAGES, cache.grid(), cache.splits()));
    let mut packed = [Vec::new(), Vec::new()];
    for rows in [0..1, 8190..8194, 24_570..24_580, 119_999..120_000, 5..5] {
        assert_eq!(reader.metas(rows.clone()).unwrap(), cache.metas(rows.clone()).unwrap(), "{rows:?}");
        reader.read_packed(&rows.clone().collect::<Vec<_>>(), &mut packed[0]).unwrap();
        cache.read_packed(rows.clone(), &mut packed[1]).unwrap();
        assert_eq!(packed[0], packed[1], "{rows:?}");
    }
    let error = reader.metas(119_999..120_001).unwrap_err();
    assert!(matches!(error, CacheError::RowOutOfRange { row: 120_000, .. }), "{error}");
}

#[test]
fn a_reader_opens_the_shards_that_it_needs_and_names_damage_in_them() {
    let (_temp, dir) = large_cache();
    let shard = dir.join("shard-00000-00001.parquet");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    let reader = RowReader::open(&dir).unwrap();
    assert_eq!(reader.metas(0..1).unwrap()[0].key, key_of(0));
    let error = reader.metas(30_000..30_001).unwrap_err();
    assert!(matches!(&error, CacheError::ShardSize { path, .. } if *path == shard), "{error}");
    fs::remove_file(&shard).unwrap();
    let error = RowReader::open(&dir).unwrap().metas(30_000..30_001).unwrap_err();
    assert!(matches!(error, CacheError::MissingShard { .. }), "{error}");
}

#[test]
fn small_caches_have_no_index_and_an_index_goes_with_its_cache() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("small");
    run(&dir, &small_job(), OpenMode::Resume).unwrap();
    let cache = TokenCache::open(&dir).unwrap();
    let filter = RowFilter { key: Some("n00000002".into()), ..RowFilter::default() };
    assert!(!find_rows(&cache, &ClassIndex::of(&cache), &filter, &NEVER).unwrap().is_empty());
    assert!(!names(&dir).contains(&KEY_INDEX_FILE.to_owned()));

    let (_temp, large) = large_cache();
    let rest = temp.path().join("rest");
    fs::create_dir(&rest).unwrap();
    remove_cache(&large, &rest).unwrap();
    assert!(!large.exists() && names(&rest).is_empty());
}

#[test]
fn labels_of_any_size_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let last = [65_533, 65_534, 65_535, 70_000, 999_999];
    for (number, largest) in last.into_iter().enumerate() {
        let dir = temp.path().join(number.to_string());
        let labels = [-1, 0, largest, 3, -1];
        let mut job = JobSpec::new(GridSpec { height: 1, width: 1, bits: 2 }, labels.len(), 1);
        job.rows_per_group = 2;
        let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
        for (image, label) in labels.into_iter().enumerate() {
            let row = Row { tokens: &[1], label, key: "a", view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(image, &[row]).unwrap();
        }
        writer.finish().unwrap();
        let cache = TokenCache::open(&dir).unwrap();
        assert_eq!((0..labels.len()).map(|row| cache.label(row)).collect::<Vec<_>>(), labels);
    }
}
