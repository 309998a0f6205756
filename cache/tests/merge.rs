//! Caches out of caches: merged, widened, cut down.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{
    Batch, CacheError, CacheWriter, JobSpec, Loader, LoaderConfig, MergeInput, OpenMode, Row, Selection, TokenCache,
    merge, subset, verify,
};

/// Writes the images of the small job for which `classes` has a class, as a run over those folders alone would: with
/// images, classes and labels counted anew.
fn part(dir: &Path, classes: std::ops::Range<i32>) {
    let full = small_job();
    let images: Vec<usize> = (0..37).filter(|image| classes.contains(&label_of(&full, *image))).collect();
    let mut job = small_job();
    job.source.images = images.len();
    job.source.location = format!("/data/part-{}", classes.start);
    job.classes = full.classes[classes.start as usize..classes.end as usize].to_vec();
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for (number, image) in images.into_iter().enumerate() {
        let key = key_of(&full, image);
        if BAD_IMAGES.contains(&image) {
            writer.quarantine(number, &key, "decode", "premature end of JPEG file").unwrap();
            continue;
        }
        let tokens = [0, 1].map(|view| tokens_of(full.grid, image, view));
        let row = |view: u32| Row {
            tokens: &tokens[view as usize],
            label: label_of(&full, image) - classes.start,
            key: &key,
            view,
            crop_x: (scramble(image as u64 + 1) % 90) as i32,
            crop_y: view as i32 * 7,
            flip: view % 2 == 1,
        };
        writer.push_image(number, &[row(0), row(1)]).unwrap();
    }
    writer.finish().unwrap();
}

fn check(dir: &Path) -> TokenCache {
    let report = verify(dir, &mut |_, _| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");
    let cache = TokenCache::open(dir).unwrap();
    assert_eq!(cache.recompute_content_hash().unwrap(), cache.content_hash());
    cache
}

fn merge_all(out: &Path, inputs: &[&Path]) -> Result<String, CacheError> {
    let inputs: Vec<_> = inputs.iter().map(|dir| MergeInput::new(*dir)).collect();
    merge(out, &inputs, OpenMode::Resume).map(|done| done.content_hash.unwrap())
}

#[test]
fn two_half_runs_are_one_full_run() {
    let (temp, full) = small_cache();
    let (a, b, out) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("out"));
    part(&a, 0..1);
    part(&b, 1..4);
    assert_eq!(merge_all(&out, &[&a, &b]).unwrap(), check(&full).content_hash());
    let (merged, full) = (check(&out), check(&full));
    assert_eq!(merged.manifest().classes, small_job().classes);
    assert_eq!((merged.manifest().source.images, merged.manifest().quarantine.images), (37, 3));
    assert_eq!(merged.metas(0..68).unwrap(), full.metas(0..68).unwrap());
    let lists = [&out, &temp.path().join("cache")].map(|dir| fs::read_to_string(dir.join("quarantine.jsonl")).unwrap());
    assert_eq!(lists[0], lists[1]);
    // Again: it is done. In another order: the same rows.
    assert_eq!(merge_all(&out, &[&a, &b]).unwrap(), merged.content_hash());
    assert_eq!(merge_all(&temp.path().join("reverse"), &[&b, &a]).unwrap(), merged.content_hash());
}

#[test]
fn caches_that_do_not_fit_are_refused_by_the_field() {
    let (temp, a) = small_cache();
    type Change = fn(&mut JobSpec);
    let changes: [(&str, Change); 6] = [
        ("tokenizer.fingerprint is \"ffff\", expected \"0123abcd\"", |job| job.tokenizer.fingerprint = "ffff".into()),
        ("tokenizer.precision is \"bf16\"", |job| job.tokenizer.precision = "bf16".into()),
        ("recipe.seed is 8, expected 7", |job| job.recipe["seed"] = json!(8)),
        ("grid is \"3x5\", expected \"5x3\"", |job| (job.grid.height, job.grid.width) = (3, 5)),
        ("views is 1, expected 2", |job| job.num_views = 1),
        ("classes is a list of 4 that is not sorted", |job| job.classes.swap(0, 1)),
    ];
    for (i, (expected, change)) in changes.into_iter().enumerate() {
        let (dir, out) = (temp.path().join(format!("{i}")), temp.path().join(format!("out-{i}")));
        let mut job = small_job();
        change(&mut job);
        run(&dir, &job, OpenMode::Resume).unwrap();
        let error = merge_all(&out, &[&a, &dir]).unwrap_err();
        assert!(matches!(error, CacheError::CachesDiffer { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error} should say {expected}");
        assert!(!out.exists(), "nothing is begun");
    }
    let error = merge_all(&temp.path().join("twice"), &[&a, &a]).unwrap_err();
    assert!(matches!(&error, CacheError::DuplicateKey { key, .. } if *key == key_of(&small_job(), 1)), "{error}");
    assert!(matches!(merge_all(&temp.path().join("none"), &[]), Err(CacheError::NothingToMerge)));
}

/// Views 0..2, and a job that encoded only views 2..5 of the same images: together what a job of five views writes.
#[test]
fn more_views_are_added_to_a_cache() {
    let (temp, _) = small_cache();
    let job = |views: u32, first_view: u32, name: &str| {
        let mut job = JobSpec { num_views: views, first_view, ..small_job() };
        job.recipe["views"] = json!(name);
        job
    };
    let write = |name: &str, job: &JobSpec| {
        let dir = temp.path().join(name);
        let mut writer = CacheWriter::open(&dir, job.clone(), OpenMode::Resume).unwrap();
        for image in 0..37 {
            if BAD_IMAGES.contains(&image) {
                push(&mut writer, job, image).unwrap();
                continue;
            }
            let views = job.first_view..job.first_view + job.num_views;
            let (key, label) = (key_of(job, image), label_of(job, image));
            let tokens: Vec<_> = views.clone().map(|view| tokens_of(job.grid, image, view)).collect();
            let row =
                |(view, tokens)| Row { tokens, label, key: &key, view, crop_x: view as i32, crop_y: 0, flip: false };
            let rows: Vec<_> = views.zip(tokens.iter().map(Vec::as_slice)).map(row).collect();
            writer.push_image(image, &rows).unwrap();
        }
        writer.finish().unwrap();
        dir
    };
    let (two, five) = (job(2, 0, "random-crop:2"), job(5, 0, "random-crop:5"));
    let more = job(3, 2, "random-crop:5");
    let (two, five_dir, more) = (write("two", &two), write("five", &five), write("more", &more));
    assert_eq!(check(&more).meta(0).unwrap().view, 2);
    let out = temp.path().join("out");
    assert_eq!(merge_all(&out, &[&more, &two]).unwrap(), check(&five_dir).content_hash());
    let merged = check(&out);
    assert_eq!((merged.num_views(), merged.manifest().job.as_str()), (5, check(&five_dir).manifest().job.as_str()));
    // It is the cache of the job of five views: running that job finds nothing to do.
    assert!(CacheWriter::open(&out, five, OpenMode::Resume).unwrap().is_complete());

    let gap = write("gap", &job(1, 6, "random-crop:7"));
    let error = merge_all(&temp.path().join("x"), &[&two, &gap]).unwrap_err().to_string();
    assert!(error.contains("first_view is 6, expected 2"), "{error}");
    let mut other = job(3, 2, "random-crop:5");
    other.recipe["seed"] = json!(99);
    let error = merge_all(&temp.path().join("x"), &[&two, &write("seed", &other)]).unwrap_err().to_string();
    assert!(error.contains("recipe.seed is 99, expected 7"), "{error}");
}

#[test]
fn splits_are_kept_hashed_and_loaded_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b, out) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("out"));
    part(&a, 0..2);
    part(&b, 2..4);
    let named = |dir: &Path, name: &str| MergeInput { dir: dir.into(), split: Some(name.into()) };
    merge(&out, &[named(&a, "train"), named(&b, "val")], OpenMode::Resume).unwrap();
    let cache = Arc::new(check(&out));
    let plain = temp.path().join("plain");
    assert_ne!(merge_all(&plain, &[&a, &b]).unwrap(), cache.content_hash(), "the splits are part of the content");
    let val = cache.split_images("val").unwrap();
    assert_eq!(cache.split_images("train").unwrap(), 0..val.start);
    assert_eq!((val.len(), val.end), (check(&b).num_images(), 34));
    assert_eq!(cache.split_images("test"), None);

    let config = LoaderConfig { seed: 1, batch_size: val.len(), rank: 0, world_size: 1 };
    let mut loader = Loader::over(Arc::clone(&cache), config, val.clone()).unwrap();
    let mut batch = Batch::default();
    for _ in 0..3 {
        loader.next_batch(&mut batch);
        let mut images: Vec<_> = batch.rows.iter().map(|row| row / 2).collect();
        images.sort_unstable();
        assert_eq!(images, val.clone().collect::<Vec<_>>());
        assert!(batch.labels.iter().all(|label| *label >= 2));
    }
    assert!(Loader::over(Arc::clone(&cache), config, 0..35).is_err());

    // A third part joins, and a split comes out again as it went in.
    let error = merge(&temp.path().join("y"), &[MergeInput::new(&out), MergeInput::new(&b)], OpenMode::Resume);
    assert!(error.unwrap_err().to_string().contains("splits"));
    let back = temp.path().join("back");
    subset(&out, &back, &Selection { split: Some("val".into()), ..Selection::default() }, OpenMode::Resume).unwrap();
    let (back, b) = (check(&back), check(&b));
    assert_eq!((back.num_rows(), back.manifest().splits.len()), (b.num_rows(), 0));
    for row in 0..b.num_rows() {
        assert_eq!(back.packed_row(row), b.packed_row(row));
        assert_eq!(back.meta(row).unwrap().key, b.meta(row).unwrap().key);
    }
}

#[test]
fn a_merge_that_was_killed_goes_on() {
    let (temp, full) = small_cache();
    let (a, b) = (temp.path().join("a"), temp.path().join("b"));
    part(&a, 0..2);
    part(&b, 2..4);
    let reference = temp.path().join("reference");
    let hash = merge_all(&reference, &[&a, &b]).unwrap();
    assert_eq!(hash, check(&full).content_hash());
    // What a killed merge leaves: the job of the merged cache, begun.
    let job = JobSpec { rows_per_group: 8, groups_per_shard: 2, ..JobSpec::of(check(&reference).manifest()).unwrap() };
    for pushed in [1, 6, 11, 30] {
        let out = temp.path().join(format!("killed-{pushed}"));
        let mut writer = CacheWriter::open(&out, job.clone(), OpenMode::Resume).unwrap();
        (0..pushed).for_each(|image| push(&mut writer, &small_job(), image).unwrap());
        drop(writer);
        assert_eq!(merge_all(&out, &[&a, &b]).unwrap(), hash);
        check(&out);
    }
}

#[test]
fn subsets_hold_what_was_selected_and_nothing_else() {
    let (temp, full) = small_cache();
    let cache = check(&full);
    let take = |name: &str, selection: Selection| {
        let dir = temp.path().join(name);
        subset(&full, &dir, &selection, OpenMode::Resume).unwrap();
        check(&dir)
    };
    let by_class =
        take("class", Selection { classes: Some(vec!["n00000001".into(), "3".into()]), ..Default::default() });
    let expected: Vec<usize> = (0..68).filter(|row| matches!(cache.label(*row), 1 | 3)).collect();
    assert_eq!(by_class.num_rows(), expected.len());
    for (row, original) in expected.into_iter().enumerate() {
        assert_eq!(by_class.packed_row(row), cache.packed_row(original));
        assert_eq!(by_class.meta(row).unwrap(), cache.meta(original).unwrap());
    }
    assert_eq!(by_class.manifest().classes, cache.manifest().classes, "labels keep their meaning");

    let limited = take("limit", Selection { limit: Some(5), views: Some(1..2), ..Default::default() });
    assert_eq!((limited.num_images(), limited.num_views(), limited.manifest().first_view), (5, 1, 1));
    assert_eq!(limited.metas(0..5).unwrap(), [1, 3, 5, 7, 9].map(|row| cache.meta(row).unwrap()));
    let everything = take("all", Selection::default());
    assert_eq!(everything.content_hash(), cache.content_hash());
    assert_eq!(take("more", Selection { limit: Some(1000), ..Default::default() }).num_rows(), 68);

    for (selection, expected) in [
        (Selection { classes: Some(vec!["cat".into()]), ..Default::default() }, "class is cat"),
        (Selection { classes: Some(vec!["4".into()]), ..Default::default() }, "class is 4"),
        (Selection { limit: Some(0), ..Default::default() }, "selection is nothing"),
        (Selection { views: Some(0..3), ..Default::default() }, "range of views is 0..3"),
        (Selection { split: Some("val".into()), ..Default::default() }, "split is val, expected none"),
    ] {
        let error = subset(&full, &temp.path().join("refused"), &selection, OpenMode::Resume).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Two caches of the same name, number of images and job, with other rows: neither a finished nor an unfinished merge of
/// one is taken for that of the other.
#[test]
fn a_merge_of_other_rows_is_refused_whatever_their_names() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b, out) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("out"));
    part(&a, 0..2);
    part(&b, 2..4);
    let hash = merge_all(&out, &[&a, &b]).unwrap();
    let job = JobSpec { rows_per_group: 8, groups_per_shard: 2, ..JobSpec::of(check(&out).manifest()).unwrap() };
    let killed = temp.path().join("killed");
    let mut writer = CacheWriter::open(&killed, job, OpenMode::Resume).unwrap();
    (0..11).for_each(|image| push(&mut writer, &small_job(), image).unwrap());
    drop(writer);
    // The first input becomes another one.
    let other = temp.path().join("other");
    let original = check(&a);
    let mut writer = CacheWriter::open(&other, JobSpec::of(original.manifest()).unwrap(), OpenMode::Resume).unwrap();
    let bad = BAD_IMAGES.iter().filter(|image| **image < original.manifest().source.images);
    for image in 0..original.manifest().source.images {
        if bad.clone().any(|bad| *bad == image) {
            writer.quarantine(image, "bad", "decode", "premature end of JPEG file").unwrap();
            continue;
        }
        let key = format!("other/{image}.png");
        let tokens = tokens_of(original.grid(), 1000 + image, 0);
        let row = |view| Row { tokens: &tokens, label: 0, key: &key, view, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row(0), row(1)]).unwrap();
    }
    writer.finish().unwrap();
    fs::rename(&a, temp.path().join("first")).unwrap();
    fs::rename(&other, &a).unwrap();
    for dir in [&out, &killed] {
        let error = merge_all(dir, &[&a, &b]).unwrap_err();
        assert!(matches!(error, CacheError::InputsDiffer { .. }), "{error}");
    }
    assert_eq!(check(&out).content_hash(), hash, "nothing was changed");
    // With the inputs that it was begun with, it goes on.
    fs::rename(&a, temp.path().join("second")).unwrap();
    fs::rename(temp.path().join("first"), &a).unwrap();
    assert_eq!(merge_all(&killed, &[&a, &b]).unwrap(), hash);
}

#[test]
fn splits_are_part_of_a_summary() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b, out) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("out"));
    part(&a, 0..2);
    part(&b, 2..4);
    let named = |dir: &Path, name: &str| MergeInput { dir: dir.into(), split: Some(name.into()) };
    merge(&out, &[named(&a, "train"), named(&b, "val")], OpenMode::Resume).unwrap();
    let (rows_a, rows_b) = (check(&a).num_rows(), check(&b).num_rows());
    let splits = tokengrid_cache::inspect(&out).unwrap().splits;
    let found: Vec<_> = splits.iter().map(|split| (split.name.as_str(), split.first_row, split.rows)).collect();
    assert_eq!(found, [("train", 0, rows_a), ("val", rows_a, rows_b)]);
    assert!(tokengrid_cache::inspect(&a).unwrap().splits.is_empty());
}

/// The old cache is taken apart by its manifest; what is somebody else's moves, and nothing is replaced.
#[test]
fn a_cache_is_removed_without_what_is_not_its_own() {
    let (temp, dir) = small_cache();
    let rest = temp.path().join("rest");
    fs::create_dir_all(dir.join(".git/objects")).unwrap();
    fs::write(dir.join(".hidden"), "mine").unwrap();
    fs::write(dir.join("shard-00009-00000.parquet"), "not of this cache").unwrap();
    fs::write(dir.join("notes.txt"), "mine, too").unwrap();
    fs::create_dir(&rest).unwrap();
    fs::write(rest.join("notes.txt"), "others").unwrap();
    tokengrid_cache::remove_cache(&dir, &rest).unwrap();
    assert!(!dir.exists());
    assert_eq!(names(&rest), [".git", ".hidden", "notes.txt", "notes.txt.1", "shard-00009-00000.parquet"]);
    assert_eq!(fs::read_to_string(rest.join("notes.txt")).unwrap(), "others");
    let foreign = temp.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("shard-00000-00000.parquet"), "somebody's").unwrap();
    assert!(tokengrid_cache::remove_cache(&foreign, &rest).is_err());
    assert_eq!(names(&foreign), ["shard-00000-00000.parquet"]);
}
