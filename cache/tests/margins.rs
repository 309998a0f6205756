//! Counts of |h|: from images to shards, parts and the manifest, however the job went.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use tokengrid_cache::{CacheWriter, JobSpec, Manifest, Margins, OpenMode, inspect};

/// Counts that differ from image to image.
fn margins_of(image: usize) -> Margins {
    Margins { counts: std::array::from_fn(|bin| (image * (bin + 1)) as u64) }
}

/// Goes on from where the job stands, up to image `end`.
fn push_up_to(writer: &mut CacheWriter, job: &JobSpec, end: usize) {
    for image in writer.next_image()..end.min(writer.images().end) {
        push(writer, job, image).unwrap();
        writer.count_margins(&margins_of(image));
    }
}

#[test]
fn counts_survive_kills_and_add_up_over_ranks() {
    let whole = small_job();
    let expected: Vec<u64> =
        (1..=8).map(|bin| (0..whole.source.images).map(|image| (image * bin) as u64).sum()).collect();
    let mut bytes: Vec<Vec<u8>> = vec![];
    for kills in [&[][..], &[3, 6, 14, 15, 29]] {
        let temp = tempfile::tempdir().unwrap();
        for end in kills {
            push_up_to(&mut CacheWriter::open(temp.path(), whole.clone(), OpenMode::Resume).unwrap(), &whole, *end);
        }
        let mut writer = CacheWriter::open(temp.path(), whole.clone(), OpenMode::Resume).unwrap();
        push_up_to(&mut writer, &whole, usize::MAX);
        writer.finish().unwrap();
        let manifest = Manifest::read(temp.path()).unwrap();
        assert_eq!(manifest.margins().counts.to_vec(), expected);
        assert_eq!(inspect(temp.path()).unwrap().margins, manifest.margins());
        assert!(manifest.shards.iter().all(|shard| !shard.margins.is_empty()));
        bytes.push(fs::read(temp.path().join("manifest.json")).unwrap());
    }
    assert!(bytes[0] == bytes[1], "the same manifest");

    let temp = tempfile::tempdir().unwrap();
    for rank in 0..2 {
        let job = JobSpec { rank, world_size: 2, ..whole.clone() };
        let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        push_up_to(&mut writer, &job, usize::MAX);
        writer.finish().unwrap();
    }
    assert_eq!(Manifest::read(temp.path()).unwrap().margins().counts.to_vec(), expected);
}

#[test]
fn a_cache_without_counts_does_not_mention_them() {
    let (_temp, dir) = small_cache();
    assert!(inspect(&dir).unwrap().margins.is_empty());
    assert!(!fs::read_to_string(dir.join("manifest.json")).unwrap().contains("margins"));
}

#[test]
fn counts_that_differ_between_manifest_and_shard_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let job = small_job();
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    push_up_to(&mut writer, &job, usize::MAX);
    writer.finish().unwrap();
    let first = Manifest::read(temp.path()).unwrap().shards[0].margins.counts[0];
    edit_manifest(
        temp.path(),
        &format!("\"margins\": [\n        {first},"),
        &format!("\"margins\": [\n        {},", first + 1),
    );
    let report = tokengrid_cache::verify(temp.path(), &mut |_, _| {}).unwrap();
    assert!(report.problems.iter().any(|problem| problem.to_string().contains("margins")), "{:?}", report.problems);
}
