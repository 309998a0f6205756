//! Parts of sets of video frames, and several of them in one cache: columns, files beside the rows, and what comes out again.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use tokengrid_cache::{
    BitOrder, CacheError, CacheWriter, FrameSet, GridSpec, JobSpec, MergeInput, OpenMode, Row, Selection, TokenCache,
    TokenizerInfo, export_1x, images_of_keys, import_1x, merge, subset, verify,
};

const RESUME: OpenMode = OpenMode::Resume;

/// Frames of a set: the id of the clip, and a number that tokens and actions are made of.
type Frames = Vec<(i32, u64)>;

/// Clips 3, 3, 3, 4, 4, 9, 9, 9, 9.
fn day() -> Frames {
    [3, 3, 3, 4, 4, 9, 9, 9, 9].into_iter().zip(0..).collect()
}

/// Clips that have ids of [`day`]'s, too.
fn night() -> Frames {
    [4, 4, 5, 5, 5].into_iter().zip(100..).collect()
}

/// The files of a set of these frames, as whoever has them would write them.
fn files_of(frames: &[(i32, u64)]) -> BTreeMap<String, Vec<u8>> {
    let token = |seed: u64, i: u64| (scramble(seed * 16 + i) as u32 & 0x3FFFF).to_le_bytes();
    let of_all = |entry: &dyn Fn(&(i32, u64)) -> Vec<u8>| frames.iter().flat_map(entry).collect::<Vec<u8>>();
    let metadata = format!("{{\"s\": 4, \"num_images\":  {}, \"vocab_size\": 262144, \"hz\": 30.0}}\n", frames.len());
    BTreeMap::from([
        ("video.bin".into(), of_all(&|(_, seed)| (0..16).flat_map(|i| token(*seed, i)).collect())),
        ("segment_ids.bin".into(), of_all(&|(segment, _)| segment.to_le_bytes().to_vec())),
        ("actions/joint_pos.bin".into(), of_all(&|(_, seed)| scramble(*seed).to_le_bytes().repeat(3))),
        ("actions/neck.bin".into(), of_all(&|(_, seed)| vec![*seed as u8])),
        ("metadata.json".into(), metadata.into_bytes()),
        ("README.md".into(), b"how it was recorded".to_vec()),
    ])
}

fn write(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> PathBuf {
    for (name, bytes) in files {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), bytes).unwrap();
    }
    dir.to_path_buf()
}

/// All files below a folder but hidden ones, by relative path.
fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            _ if name.starts_with('.') => {}
            true => found.extend(read(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes))),
            false => drop(found.insert(name, fs::read(&path).unwrap())),
        }
    }
    found
}

/// A cache of the set with these files.
fn imported(folder: &Path, name: &str, files: &BTreeMap<String, Vec<u8>>, prefix: &str) -> PathBuf {
    let (set, dir) = (write(&folder.join(format!("{name}-set")), files), folder.join(name));
    let set = FrameSet::open(&set).unwrap().with_key_prefix(prefix);
    import_1x(&set, Some(BitOrder::HighFirst), TokenizerInfo::default(), &dir, RESUME).unwrap();
    dir
}

fn sound(dir: &Path) -> TokenCache {
    let report = verify(dir, &mut |_, _| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");
    TokenCache::open(dir).unwrap()
}

/// What an export of the cache writes.
fn exported(cache: &TokenCache) -> BTreeMap<String, Vec<u8>> {
    let out = tempfile::tempdir().unwrap();
    export_1x(cache, None, out.path(), RESUME).unwrap();
    read(out.path())
}

/// The images whose keys begin with one of these.
fn of_clips(dir: &Path, clips: &[&str]) -> Selection {
    let cache = TokenCache::open(dir).unwrap();
    let keys = (0..cache.num_images()).map(|image| cache.meta(image).unwrap().key);
    let keys: HashSet<String> = keys.filter(|key| clips.iter().any(|clip| key.starts_with(clip))).collect();
    Selection { images: Some(images_of_keys(&cache, &keys).unwrap()), ..Selection::default() }
}

#[test]
fn whole_clips_of_a_set_are_the_set_of_these_clips() {
    let temp = tempfile::tempdir().unwrap();
    let dir = imported(temp.path(), "all", &files_of(&day()), "");
    for (name, clips) in [("ends", vec!["3/", "9/"]), ("middle", vec!["4/"]), ("all-of-it", vec!["3/", "4/", "9/"])] {
        let part = temp.path().join(name);
        subset(&dir, &part, &of_clips(&dir, &clips), RESUME).unwrap();
        let cache = sound(&part);
        assert_eq!(cache.manifest().shards[0].more_columns, ["segment", "frame"]);
        let is_taken = |(segment, _): &(i32, u64)| clips.contains(&format!("{segment}/").as_str());
        assert_eq!(exported(&cache), files_of(&day().into_iter().filter(is_taken).collect::<Frames>()), "{name}");
    }
    // A part of a part: entries belong to rows, whatever numbers their frames have.
    let (ends, last) = (temp.path().join("ends"), temp.path().join("last"));
    subset(&ends, &last, &of_clips(&ends, &["9/"]), RESUME).unwrap();
    assert_eq!(exported(&sound(&last)), files_of(&day()[5..]));
    assert_eq!(sound(&last).meta(0).unwrap().key, "9/00000005");
}

#[test]
fn files_beside_the_rows_of_a_part_are_restored_and_those_of_the_whole_checked() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, part) = (imported(temp.path(), "all", &files_of(&day()), ""), temp.path().join("part"));
    let first = Selection { limit: Some(5), ..Selection::default() };
    subset(&dir, &part, &first, RESUME).unwrap();
    let before = read(&part);
    fs::remove_file(part.join("attached/actions/neck.bin")).unwrap();
    fs::write(part.join("attached/README.md"), "other words").unwrap();
    assert_eq!(verify(&part, &mut |_, _| {}).unwrap().problems.len(), 2);
    subset(&dir, &part, &first, RESUME).unwrap();
    assert_eq!(read(&part), before);
    fs::write(dir.join("attached/actions/neck.bin"), [9; 9]).unwrap();
    let error = subset(&dir, &temp.path().join("refused"), &first, RESUME).unwrap_err().to_string();
    assert!(error.contains("neck.bin: checksum") && !temp.path().join("refused").exists(), "{error}");
    fs::remove_file(dir.join("attached/actions/neck.bin")).unwrap();
    let error = subset(&dir, &temp.path().join("refused"), &first, RESUME).unwrap_err().to_string();
    assert!(error.contains("neck.bin: attached file is missing") && error.contains("run the import again"), "{error}");
    // What a replaced cache had beside its rows goes with it.
    let (_small, other) = small_cache();
    subset(&other, &part, &Selection::default(), OpenMode::Overwrite).unwrap();
    assert!(!part.join("attached").exists());
}

#[test]
fn two_sets_become_one_and_come_apart_again() {
    let temp = tempfile::tempdir().unwrap();
    let (day_files, night_files) = (files_of(&day()), files_of(&night()));
    let a = imported(temp.path(), "day", &day_files, "");
    let plain = imported(temp.path(), "plain", &files_of(&day()[3..]), "");
    let b = imported(temp.path(), "night", &night_files, "night");
    assert_eq!(TokenCache::open(&b).unwrap().meta(0).unwrap().key, "night/4/00000000");
    assert_eq!(exported(&sound(&b)), night_files, "the name before the keys is no part of the set");

    // Segments and frames are counted from the same number.
    let both = temp.path().join("both");
    let inputs = |dirs: [&Path; 2]| dirs.map(MergeInput::new);
    let shifted = imported(temp.path(), "shifted", &files_of(&[(3, 7)]), "");
    let error = merge(&both, &inputs([&a, &shifted]), RESUME).unwrap_err();
    assert!(matches!(error, CacheError::DuplicateKey { .. }), "{error}");
    assert!(error.to_string().contains("--key-prefix"), "{error}");
    // Keys that do not meet need no name.
    merge(&temp.path().join("unnamed"), &inputs([&plain, &shifted]), RESUME).unwrap();
    sound(&temp.path().join("unnamed"));

    merge(&both, &inputs([&a, &b]), RESUME).unwrap();
    let cache = sound(&both);
    assert_eq!(cache.manifest().shards[0].more_columns, ["segment", "frame"]);
    // Clip 4 is in both: the second set's ids count on from the first's.
    let moved = night().into_iter().map(|(segment, seed)| (segment + 6, seed));
    assert_eq!(exported(&cache), files_of(&day().into_iter().chain(moved).collect::<Frames>()));
    let part = temp.path().join("part");
    subset(&both, &part, &of_clips(&both, &["night/"]), RESUME).unwrap();
    assert_eq!(exported(&sound(&part)), night_files);

    // The same as splits, without names.
    let b = imported(temp.path(), "unnamed-night", &night_files, "");
    let named =
        [("train", &a), ("val", &b)].map(|(name, dir)| MergeInput { split: Some(name.into()), ..MergeInput::new(dir) });
    let splits = temp.path().join("splits");
    merge(&splits, &named, RESUME).unwrap();
    sound(&splits);
    for (name, files) in [("train", &day_files), ("val", &night_files)] {
        let part = temp.path().join(name);
        subset(&splits, &part, &Selection { split: Some(name.into()), ..Selection::default() }, RESUME).unwrap();
        assert_eq!(exported(&sound(&part)), *files, "{name}");
    }
}

#[test]
fn files_that_differ_are_kept_for_each_input() {
    let temp = tempfile::tempdir().unwrap();
    let (day_files, mut night_files) = (files_of(&day()), files_of(&night()));
    night_files.insert("README.md".into(), b"other words".to_vec());
    night_files.insert("actions/hands.bin".into(), vec![7; 5 * 2]);
    let metadata = String::from_utf8(night_files["metadata.json"].clone()).unwrap().replace("30.0", "10.0");
    night_files.insert("metadata.json".into(), metadata.clone().into_bytes());
    let a = imported(temp.path(), "day", &day_files, "");
    let b = imported(temp.path(), "night", &night_files, "night");
    let both = temp.path().join("both");
    merge(&both, &[MergeInput::new(&a), MergeInput::new(&b)], RESUME).unwrap();
    let found = exported(&sound(&both));
    for (name, expected) in [
        ("input-1/README.md", &day_files["README.md"]),
        ("input-2/README.md", &night_files["README.md"]),
        ("input-1/metadata.json", &day_files["metadata.json"]),
        ("input-2/metadata.json", &night_files["metadata.json"]),
        ("input-2/actions/hands.bin", &night_files["actions/hands.bin"]),
        ("actions/neck.bin", &[&day_files["actions/neck.bin"][..], &night_files["actions/neck.bin"]].concat()),
    ] {
        assert!(found[name] == *expected, "{name}");
    }
    assert!(!found.contains_key("README.md") && !found.contains_key("actions/hands.bin"), "{:?}", found.keys());
    let own: serde_json::Value = serde_json::from_slice(&found["metadata.json"]).unwrap();
    assert_eq!(own["num_images"], 14);
    // Ten entries are none of the merged cache's 14 rows: they stay whole.
    let part = temp.path().join("part");
    subset(&both, &part, &Selection { limit: Some(5), ..Selection::default() }, RESUME).unwrap();
    let found = exported(&sound(&part));
    assert!(found["input-2/actions/hands.bin"] == night_files["actions/hands.bin"]);
    assert!(found["actions/neck.bin"] == day_files["actions/neck.bin"][..5]);
}

#[test]
fn frames_beside_other_rows_keep_their_columns() {
    let temp = tempfile::tempdir().unwrap();
    let frames = imported(temp.path(), "frames", &files_of(&day()), "");
    let (photos, both) = (temp.path().join("photos"), temp.path().join("both"));
    let job = JobSpec::new(GridSpec { height: 4, width: 4, bits: 18 }, 1, 1);
    let mut writer = CacheWriter::open(&photos, job, RESUME).unwrap();
    let row = Row { tokens: &[5; 16], label: -1, key: "cat/1.jpg", view: 0, crop_x: 0, crop_y: 0, flip: false };
    writer.push_image(0, &[row]).unwrap();
    writer.finish().unwrap();
    merge(&both, &[MergeInput::new(&frames), MergeInput::new(&photos)], RESUME).unwrap();
    let cache = sound(&both);
    assert_eq!(cache.manifest().shards[0].more_columns, ["segment", "frame"]);
    assert_eq!(cache.num_rows(), 10);
    let out = temp.path().join("out");
    let error = export_1x(&cache, None, &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("bit order"), "a photograph has none of a set: {error}");
    let error = export_1x(&cache, Some(BitOrder::HighFirst), &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("cat/1.jpg") && error.contains("<segment>/<frame>"), "{error}");
    // Without it, the frames are a set again.
    let part = temp.path().join("part");
    subset(&both, &part, &Selection { limit: Some(9), ..Selection::default() }, RESUME).unwrap();
    let out = temp.path().join("part-out");
    export_1x(&sound(&part), Some(BitOrder::HighFirst), &out, RESUME).unwrap();
    assert!(read(&out)["video.bin"] == files_of(&day())["video.bin"]);
}
