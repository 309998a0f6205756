//! Reading returns the rows that were written.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use tokengrid_cache::{
    Access, CacheError, CacheWriter, GridSpec, JobSpec, OpenMode, Row, TokenCache, inspect, pack, packed_bytes, verify,
};

/// Every row of `job` as the cache in `dir` has it.
fn assert_contents(dir: &std::path::Path, job: &JobSpec, access: Access) {
    let cache = TokenCache::open_with(dir, access).unwrap();
    let good: Vec<usize> =
        (0..job.source.images).filter(|i| job.source.images != 37 || !BAD_IMAGES.contains(i)).collect();
    assert_eq!(cache.num_images(), good.len());
    assert_eq!(cache.num_rows(), good.len() * job.num_views as usize);
    assert_eq!(cache.grid(), job.grid);
    let metas = cache.metas(0..cache.num_rows()).unwrap();
    for (i, image) in good.iter().enumerate() {
        for (view, row) in cache.image_rows(i).enumerate() {
            let expected = tokens_of(job.grid, *image, view as u32);
            let mut tokens = vec![0; job.grid.num_tokens()];
            cache.tokens_into(row, &mut tokens);
            assert_eq!(tokens, expected);
            let mut packed = vec![0; packed_bytes(expected.len(), job.grid.bits)];
            pack(&expected, job.grid.bits, &mut packed);
            assert_eq!(cache.packed_row(row), packed);
            assert_eq!(cache.label(row), label_of(job, *image));
            let meta = cache.meta(row).unwrap();
            assert_eq!(meta, metas[row]);
            assert_eq!((meta.key.as_str(), meta.view), (key_of(job, *image).as_str(), view as u32));
            assert_eq!((meta.label, meta.flip), (label_of(job, *image), view % 2 == 1));
            assert_eq!((meta.crop_x, meta.crop_y), ((scramble(*image as u64 + 1) % 90) as i32, view as i32 * 7));
        }
    }
    assert_eq!(cache.recompute_content_hash().unwrap(), cache.content_hash());
    assert!(verify(dir, &mut |_, _| {}).unwrap().is_ok());
}

#[test]
fn every_column_is_read_back() {
    let (_temp, dir) = small_cache();
    for access in [Access::Map, Access::MapRandom, Access::Preload, Access::Copy] {
        assert_contents(&dir, &small_job(), access);
    }
    // 34 images of 2 views in groups of 4 images; the quarantined ones take no row in a group.
    let shards: Vec<_> = (0..5).map(|i| format!("shard-00000-0000{i}.parquet")).collect();
    let expected: Vec<_> = ["manifest.json", "quarantine.jsonl"].map(str::to_owned).into_iter().chain(shards).collect();
    assert_eq!(names(&dir), expected);
}

/// The purpose of `--no-mmap`: a reader that copied files is unaffected when they are cut or overwritten.
#[test]
fn a_copy_is_unaffected_by_changes_of_the_files() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open_with(&dir, Access::Copy).unwrap();
    let expected: Vec<_> = (0..68).map(|row| (cache.packed_row(row).to_vec(), cache.meta(row).unwrap())).collect();
    for name in names(&dir) {
        fs::File::options().write(true).open(dir.join(&name)).unwrap().set_len(name.len() as u64).unwrap();
    }
    let found: Vec<_> = (0..68).map(|row| (cache.packed_row(row).to_vec(), cache.meta(row).unwrap())).collect();
    assert_eq!(found, expected);
    assert!(TokenCache::open(&dir).is_err());
}

#[test]
fn every_shape_is_read_back() {
    for (height, width, bits, views, rows_per_group, groups_per_shard) in [
        (1, 1, 1, 1, 1, 1),
        (1, 1, 24, 3, 1, 1),
        (16, 16, 18, 1, 1000, 4),
        (3, 7, 13, 10, 25, 3),
        (2, 9, 6, 4, 3, 2),
        (32, 32, 10, 1, 7, 1),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let mut job = JobSpec::new(GridSpec { height, width, bits }, 23, views);
        job.classes = vec!["a".into(), "b".into(), "c".into()];
        (job.rows_per_group, job.groups_per_shard) = (rows_per_group, groups_per_shard);
        run(temp.path(), &job, OpenMode::Resume).unwrap();
        assert_contents(temp.path(), &job, Access::Map);
    }
}

#[test]
fn the_quarantine_list_names_the_missing_images() {
    let (_temp, dir) = small_cache();
    let text = fs::read_to_string(dir.join("quarantine.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["index"].as_u64().unwrap() as usize).collect::<Vec<_>>(), BAD_IMAGES);
    assert_eq!(lines[1]["key"], key_of(&small_job(), 7));
    assert_eq!((&lines[1]["stage"], &lines[1]["reason"]), (&"decode".into(), &"premature end of JPEG file".into()));
}

#[test]
fn a_summary_describes_the_cache() {
    let (_temp, dir) = small_cache();
    let info = inspect(&dir).unwrap();
    let on_disk: u64 = names(&dir).iter().map(|name| fs::metadata(dir.join(name)).unwrap().len()).sum();
    assert_eq!((info.rows, info.images, info.quarantined, info.views), (68, 34, 3, 2));
    assert_eq!((info.grid, info.bits, info.bytes), ([5, 3], 18, on_disk));
    assert_eq!(info.shards.iter().map(|shard| shard.rows).sum::<usize>(), 68);
    let json = serde_json::to_value(&info).unwrap();
    for field in ["format_version", "bytes_per_row", "content_hash", "tokenizer", "recipe", "shards"] {
        assert!(!json[field].is_null(), "{field}");
    }
}

/// The documented limit: at most 600 bytes for a row of 256 tokens with an ImageNet-like key, everything counted.
#[test]
fn a_row_takes_at_most_600_bytes() {
    for (views, shuffled) in [(1, false), (1, true), (10, false)] {
        let temp = tempfile::tempdir().unwrap();
        let images = 40_000 / views as usize;
        let mut job = JobSpec::new(GridSpec { height: 16, width: 16, bits: 18 }, images, views);
        job.classes = (0..1000).map(|i| format!("n{i:08}")).collect();
        let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        let tokens = vec![0; 256];
        for image in 0..images {
            // In a shuffled source neighbours share no folder, so labels and keys do not compress.
            let place = if shuffled { scramble(image as u64) as usize % images } else { image };
            let (key, label) = (key_of(&job, place), label_of(&job, place));
            let crop = |n: u64| (scramble(image as u64 * 100 + n) % 150) as i32;
            let row = |view: u32| Row {
                tokens: &tokens,
                label,
                key: &key,
                view,
                crop_x: crop(u64::from(view) * 2),
                crop_y: crop(u64::from(view) * 2 + 1),
                flip: crop(u64::from(view)) % 2 == 0,
            };
            writer.push_image(image, &(0..views).map(row).collect::<Vec<_>>()).unwrap();
        }
        writer.finish().unwrap();
        let info = inspect(temp.path()).unwrap();
        println!("{views} views, shuffled {shuffled}: {:.1} bytes per row", info.bytes_per_row);
        assert!(info.bytes_per_row <= 600.0, "{} bytes per row, {views} views", info.bytes_per_row);
    }
}

#[test]
fn a_cache_without_rows_is_valid() {
    let temp = tempfile::tempdir().unwrap();
    let grid = GridSpec { height: 2, width: 2, bits: 4 };
    let empty = temp.path().join("empty");
    let done = run(&empty, &JobSpec::new(grid, 0, 1), OpenMode::Resume).unwrap();
    assert_eq!((done.published, done.rows, done.content_hash), (true, 0, Some("0".repeat(64))));
    let bad = temp.path().join("bad");
    let mut writer = CacheWriter::open(&bad, JobSpec::new(grid, 3, 1), OpenMode::Resume).unwrap();
    (0..3).for_each(|i| writer.quarantine(i, "key", "read", "gone").unwrap());
    assert_eq!(writer.finish().unwrap().quarantined, 3);
    for dir in [empty, bad] {
        assert_eq!(TokenCache::open(&dir).unwrap().num_rows(), 0);
        assert!(verify(&dir, &mut |_, _| {}).unwrap().is_ok());
    }
}

#[test]
fn invalid_rows_are_refused_and_leave_no_files() {
    let (temp, good) = small_cache();
    let dir = temp.path().join("other");
    let job = small_job();
    let mut writer = CacheWriter::open(&dir, job.clone(), OpenMode::Resume).unwrap();
    push(&mut writer, &job, 0).unwrap();
    let tokens = tokens_of(job.grid, 1, 0);
    let row = Row { tokens: &tokens, label: 0, key: "k", view: 0, crop_x: 0, crop_y: 0, flip: false };
    let second = Row { view: 1, ..row };
    let wide: Vec<u32> = tokens.iter().map(|_| 1 << 18).collect();
    let long_key = "k".repeat(4097);
    let refused: [(&str, Vec<Row<'_>>); 9] = [
        ("number of views is 1, expected 2", vec![row]),
        ("number of views is 0, expected 2", vec![]),
        ("view is 0, expected 1", vec![row, row]),
        ("key of a later view is l, expected k", vec![row, Row { key: "l", ..second }]),
        ("token is 262144, expected less than 2^18", vec![row, Row { tokens: &wide, ..second }]),
        ("number of tokens is 14, expected 15", vec![row, Row { tokens: &tokens[1..], ..second }]),
        ("label is 4, expected -1 or one of 4 classes", vec![Row { label: 4, ..row }, second]),
        ("label is -2, expected -1 or one of 4 classes", vec![Row { label: -2, ..row }, second]),
        ("length of the key is 4097", vec![Row { key: &long_key, ..row }, Row { key: &long_key, ..second }]),
    ];
    for (expected, rows) in refused {
        let error = writer.push_image(1, &rows).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should say {expected}");
        assert!(error.to_string().len() < 600, "a long key is not printed whole");
    }
    for image in [0, 2, 37] {
        let error = writer.push_image(image, &[row, second]).unwrap_err();
        assert!(matches!(error, CacheError::ImageOrder { expected: 1, .. }), "{error}");
    }
    (1..37).for_each(|image| push(&mut writer, &job, image).unwrap());
    assert!(matches!(push(&mut writer, &job, 37), Err(CacheError::ImageOrder { .. })));
    writer.finish().unwrap();
    for name in names(&good) {
        assert_eq!(fs::read(good.join(&name)).unwrap(), fs::read(dir.join(&name)).unwrap(), "{name}");
    }
}
