//! Settings that a run takes from its cache, for caches of all kinds.

use super::*;
use crate::config::{Typed, resolve_listing};
use std::path::PathBuf;
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row, Split};

/// A cache of 12 images, 3 x 3 tokens, labels 0..=4, with the given class names and splits.
fn cache(dir: &Path, classes: usize, splits: &[(&str, [usize; 2])]) -> PathBuf {
    let mut job = JobSpec::new(GridSpec { height: 3, width: 3, bits: 18 }, 12, 1);
    job.classes = (0..classes).map(|class| format!("class {class}")).collect();
    job.splits = splits.iter().map(|(name, images)| Split { name: name.to_string(), images: *images }).collect();
    let dir = dir.join("cache");
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for image in 0..12 {
        let (tokens, key) = ([image as u32; 9], format!("{image:02}"));
        let row =
            Row { tokens: &tokens, label: image as i32 % 5, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    dir
}

fn completed(cache: &Path, set: &[&str], run: Option<&Path>) -> Result<(ArConfig, String), TrainError> {
    let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
    let flags = vec![("data.cache", cache.display().to_string().into())];
    let mut resolved = resolve_listing(&Typed { set: &set, flags, ..Typed::default() })?;
    let lines = complete_from_cache(&mut resolved, run)?;
    Ok((resolved.config, lines.join("\n")))
}

#[test]
fn classes_and_grid_are_those_of_the_cache_unless_set() {
    let folder = tempfile::tempdir().unwrap();
    let named = cache(folder.path(), 7, &[]);
    let (config, lines) = completed(&named, &["model.preset=tiny"], None).unwrap();
    assert_eq!((config.model.class_num, config.model.block_size, config.data.split), (7, 9, None));
    assert!(lines.contains("model.class_num = 7") && lines.contains("block_size = 9 (3x3)"), "{lines}");
    let (config, lines) = completed(&named, &["model.class_num=1000", "model.block_size=16"], None).unwrap();
    assert_eq!((config.model.class_num, config.model.block_size), (1000, 16));
    assert!(lines.is_empty(), "{lines}");
    let other = tempfile::tempdir().unwrap();
    let nameless = cache(other.path(), 0, &[]);
    assert_eq!(completed(&nameless, &[], None).unwrap().0.model.class_num, 5, "the largest label is 4");
}

#[test]
fn a_split_called_train_is_trained_on_and_val_validated_on() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path(), 5, &[("val", [0, 3]), ("train", [3, 10]), ("test", [10, 12])]);
    let splits = |set: &[&str]| {
        let (ArConfig { data, .. }, lines) = completed(&cache, set, None).unwrap();
        (data.split, data.val_split, lines)
    };
    let some = |name: &str| Some(name.to_string());
    let (train, val, lines) = splits(&[]);
    assert_eq!((train, val), (some("train"), some("val")));
    assert!(lines.contains("training on split `train` of `val`, `train`, `test`"), "{lines}");
    assert!(lines.contains("validating on split `val`"), "{lines}");
    let (train, val, lines) = splits(&["data.split=all"]);
    assert_eq!((train, val), (None, None));
    assert!(lines.contains("training on all splits"), "{lines}");
    let (train, val, _) = splits(&["data.split=val", "data.val_split=test"]);
    assert_eq!((train, val), (some("val"), some("test")));
    let refused = completed(&cache, &["data.split=trian"], None).unwrap_err().to_string();
    assert!(refused.contains("no split `trian`") && refused.contains("`val`, `train`, `test`"), "{refused}");
}

#[test]
fn a_run_continues_with_its_first_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path(), 5, &[("train", [0, 8]), ("val", [8, 12])]), folder.path().join("run"));
    // As written by a version without splits, which used 1,000 classes.
    std::fs::create_dir(&run).unwrap();
    let old = "[model]\nclass_num = 1000\nblock_size = 9\n[train]\n[data]\ncache = \"c\"\n";
    std::fs::write(run.join("config.toml"), old).unwrap();
    let (config, lines) = completed(&cache, &[], Some(&run)).unwrap();
    assert_eq!((config.model.class_num, config.model.block_size, config.data.split), (1000, 9, None));
    assert!(lines.contains("training on all splits"), "{lines}");
}
