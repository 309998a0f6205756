//! A damaged cache is repaired to the same bytes, or left unchanged.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tokengrid_cache::{
    CacheError, CacheWriter, Deliver, Encoded, JobSpec, OpenMode, QuarantineRecord, RepairReport, Row, Split,
    TokenCache, repair, verify,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Encodes an image as [`push`] does, after `change` was applied to it.
fn deliver_image(image: usize, change: fn(usize, &mut Row<'_>), deliver: &mut Deliver<'_>) -> Result<(), CacheError> {
    let job = small_job();
    let key = key_of(&job, image);
    if BAD_IMAGES.contains(&image) {
        let (stage, reason) = ("decode".into(), "premature end of JPEG file".into());
        return deliver(image, Encoded::Quarantined(QuarantineRecord { index: image, key, stage, reason }));
    }
    let tokens: Vec<_> = (0..2).map(|view| tokens_of(job.grid, image, view)).collect();
    let row = |view: u32| {
        let mut row = Row {
            tokens: &tokens[view as usize],
            label: label_of(&job, image),
            key: &key,
            view,
            crop_x: (scramble(image as u64 + 1) % 90) as i32,
            crop_y: view as i32 * 7,
            flip: view % 2 == 1,
        };
        change(image, &mut row);
        row
    };
    deliver(image, Encoded::Rows(&[row(0), row(1)]))
}

/// Repairs with a fake encoder; also the images that it encoded.
fn fix(dir: &Path) -> (Result<RepairReport, CacheError>, Vec<usize>) {
    let mut asked = Vec::new();
    let result = repair(dir, None, &mut |images, deliver| {
        asked.extend_from_slice(images);
        images.iter().try_for_each(|image| deliver_image(*image, |_, _| {}, deliver)).map_err(Failure::from)
    });
    (result, asked)
}

/// Every file of a folder by its hash.
fn contents(dir: &Path) -> BTreeMap<String, String> {
    let hash = |name: &String| blake3::hash(&fs::read(dir.join(name)).unwrap()).to_hex().to_string();
    names(dir).into_iter().map(|name| (name.clone(), hash(&name))).collect()
}

fn alter(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

const SHARD: &str = "shard-00000-00001.parquet";

#[test]
fn one_row_group_is_encoded_again_and_the_bytes_are_the_same() {
    let (_temp, dir) = small_cache();
    let (good, cache) = (contents(&dir), TokenCache::open(&dir).unwrap());
    let groups = &cache.manifest().shards[1].row_groups;
    for (index, group) in groups.iter().enumerate() {
        for place in [group.range.offset, group.range.offset + group.range.bytes / 2] {
            alter(&dir, SHARD, |bytes| bytes[place as usize] ^= 0x40);
            let (report, asked) = fix(&dir);
            let report = report.unwrap();
            assert_eq!(report.found.len(), 1);
            assert_eq!((report.is_ok(), report.row_groups_encoded, &report.shards[..]), (true, 1, &[SHARD.into()][..]));
            assert_eq!(asked, (group.images[0]..group.images[1]).collect::<Vec<_>>(), "group {index}, byte {place}");
            assert_eq!(contents(&dir), good);
        }
    }
    let (report, asked) = fix(&dir);
    assert_eq!((report.unwrap(), asked), (RepairReport::default(), vec![]), "nothing to do");
}

#[test]
fn missing_truncated_and_footless_shards_are_restored() {
    let (_temp, dir) = small_cache();
    let good = contents(&dir);
    let last = fs::read(dir.join("shard-00000-00004.parquet")).unwrap().len();
    type Damage = fn(&Path, usize);
    let damages: [(&str, Damage); 5] = [
        ("gone", |path, _| fs::remove_file(path).unwrap()),
        ("empty", |path, _| fs::write(path, "").unwrap()),
        ("cut", |path, last| fs::write(path, &fs::read(path).unwrap()[..last / 2]).unwrap()),
        ("longer", |path, _| fs::write(path, [fs::read(path).unwrap(), vec![0]].concat()).unwrap()),
        ("footer", |path, last| {
            let mut bytes = fs::read(path).unwrap();
            bytes[last - 20] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (name, damage) in damages {
        damage(&dir.join("shard-00000-00004.parquet"), last);
        let report = fix(&dir).0.unwrap();
        assert!(report.is_ok() && !report.found.is_empty(), "{name}: {report:?}");
        assert_eq!(contents(&dir), good, "{name}");
    }
    // All shards and the quarantine list at once. The list is rebuilt from the shards, and the shards need the list.
    for name in names(&dir).iter().filter(|name| *name != "manifest.json") {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let report = fix(&dir).0.unwrap();
    assert!(report.is_ok() && report.quarantine_rebuilt);
    assert_eq!((report.shards.len(), report.images_encoded), (5, 34));
    assert_eq!(contents(&dir), good);
}

#[test]
fn a_damaged_manifest_or_quarantine_list_is_made_again_without_the_encoder() {
    let (_temp, dir) = small_cache();
    let good = contents(&dir);
    let text = fs::read(dir.join("manifest.json")).unwrap();
    for (name, change) in [
        ("manifest.json", b"".to_vec()),
        ("manifest.json", text[..500].to_vec()),
        ("manifest.json", text.iter().map(|b| if *b == b'8' { b'9' } else { *b }).collect()),
        ("quarantine.jsonl", b"{}\n".to_vec()),
    ] {
        fs::write(dir.join(name), change).unwrap();
        let (report, asked) = fix(&dir);
        let report = report.unwrap();
        assert!(report.is_ok() && asked.is_empty(), "{report:?}");
        assert_eq!(
            (report.manifest_rebuilt, report.quarantine_rebuilt),
            (name == "manifest.json", name != "manifest.json")
        );
        assert_eq!(contents(&dir), good, "{name}");
    }
}

/// Without a manifest, the content of a missing or damaged shard is unknown.
#[test]
fn a_manifest_is_not_invented() {
    let (_temp, dir) = small_cache();
    alter(&dir, "manifest.json", |bytes| bytes[30] ^= 1);
    let shard = fs::read(dir.join(SHARD)).unwrap();
    fs::remove_file(dir.join(SHARD)).unwrap();
    let error = fix(&dir).0.unwrap_err();
    assert!(matches!(error, CacheError::NoManifest { .. }) && error.to_string().contains("image 10"), "{error}");
    fs::write(dir.join(SHARD), &shard).unwrap();
    alter(&dir, SHARD, |bytes| bytes[60] ^= 1);
    let error = fix(&dir).0.unwrap_err();
    assert!(error.to_string().contains("shard-00000-00001.parquet, row group 0: column tokens"), "{error}");
    let mut other = small_job();
    other.tokenizer.fingerprint = "ffff".into();
    fs::write(dir.join(SHARD), &shard).unwrap();
    assert!(repair(&dir, Some(&other), &mut |_, _| Ok(())).is_err());
    assert!(repair(&dir, Some(&small_job()), &mut |_, _| Ok(())).unwrap().is_ok());
}

#[test]
fn other_rows_are_refused_by_name_and_change_nothing() {
    let (_temp, dir) = small_cache();
    alter(&dir, SHARD, |bytes| bytes[60] ^= 1);
    let before = contents(&dir);
    let attempt = |change: fn(usize, &mut Row<'_>)| {
        let error = repair(&dir, None, &mut |images, deliver| {
            images.iter().try_for_each(|image| deliver_image(*image, change, deliver)).map_err(Failure::from)
        })
        .unwrap_err();
        assert_eq!(contents(&dir), before);
        error.to_string()
    };
    static OTHER: [u32; 15] = [7; 15];
    let error = attempt(|image, row| {
        if image == 12 && row.view == 1 {
            row.tokens = &OTHER;
        }
    });
    assert!(error.contains(SHARD) && error.contains("2 grids of row group 0 differ"), "{error}");
    let error = attempt(|_, row| row.crop_x += 1);
    assert!(error.contains("crop_x") || error.contains("grids of row group 0"), "{error}");
    let error = attempt(|_, row| row.label = 99);
    assert!(error.contains("label is 99"), "{error}");

    let error = repair(&dir, None, &mut |_, _| Err("no such tokenizer".into())).unwrap_err();
    assert!(matches!(error, CacheError::Encoder { .. }) && chain(&error).contains("no such tokenizer"), "{error}");
    let error = repair(&dir, None, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, CacheError::NotEncoded { image: 10 }), "{error}");
    let skipping = repair(&dir, None, &mut |images, deliver| {
        images[1..].iter().try_for_each(|image| deliver_image(*image, |_, _| {}, deliver)).map_err(Failure::from)
    });
    assert!(matches!(skipping, Err(CacheError::ImageOrder { expected: 10, actual: 11 })), "{skipping:?}");
    assert_eq!(contents(&dir), before);
}

/// Surplus files do not belong to the cache: they are reported, and not changed.
#[test]
fn files_that_do_not_belong_to_the_cache_stay() {
    let (_temp, dir) = small_cache();
    fs::write(dir.join("mine.parquet"), "PAR1").unwrap();
    let report = fix(&dir).0.unwrap();
    assert_eq!((report.is_ok(), report.remaining[0].shard.as_str()), (false, "mine.parquet"));
    assert!(dir.join("mine.parquet").exists());
}

#[test]
fn caches_of_several_ranks_and_splits_are_repaired_too() {
    let temp = tempfile::tempdir().unwrap();
    let split = |name: &str, start, end| Split { name: name.into(), images: [start, end] };
    let splits = vec![split("train", 0, 19), split("val", 19, 37)];
    for rank in 0..3 {
        let job = JobSpec { rank, world_size: 3, splits: splits.clone(), ..small_job() };
        let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        writer.images().for_each(|image| push(&mut writer, &job, image).unwrap());
        writer.finish().unwrap();
    }
    let good = contents(temp.path());
    for name in names(temp.path()).iter().filter(|name| name.ends_with("parquet")) {
        alter(temp.path(), name, |bytes| bytes[50] ^= 1);
    }
    assert!(fix(temp.path()).0.unwrap().is_ok());
    assert_eq!(contents(temp.path()), good);
    fs::write(temp.path().join("manifest.json"), "").unwrap();
    assert!(fix(temp.path()).0.unwrap().manifest_rebuilt);
    assert_eq!(contents(temp.path()), good);
    assert!(verify(temp.path(), &mut |_, _| {}).unwrap().is_ok());
}
