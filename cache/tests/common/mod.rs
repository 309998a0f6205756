//! Small caches with known contents.
#![allow(dead_code)] // every test file uses its own part of this

use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tokengrid_cache::{CacheError, CacheWriter, Finished, GridSpec, JobSpec, OpenMode, Row, TokenizerInfo};

/// Images of the small job that are in quarantine.
pub(crate) const BAD_IMAGES: [usize; 3] = [0, 7, 36];

/// 37 images of 5 x 3 grids at 18 bits, 2 views; row groups of 8 rows, shards of 2 row groups.
pub(crate) fn small_job() -> JobSpec {
    let mut job = JobSpec::new(GridSpec { height: 5, width: 3, bits: 18 }, 37, 2);
    job.tokenizer = TokenizerInfo {
        fingerprint: "0123abcd".into(),
        name: "tiny".into(),
        variant: "ema".into(),
        precision: "fp32".into(),
        ..TokenizerInfo::default()
    };
    job.recipe = json!({"size": 256, "views": "ten-crop:1.1", "scale": 1.1, "seed": 7, "orientation": "ignore"});
    job.source.kind = "class folders".into();
    job.source.location = "/data/imagenet/train".into();
    job.source.excluded = 2;
    job.classes = (0..4).map(|i| format!("n{i:08}")).collect();
    job.rows_per_group = 8;
    job.groups_per_shard = 2;
    job
}

/// A pseudorandom number (SplitMix64).
pub(crate) fn scramble(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The tokens that every test expects of a view of an image.
pub(crate) fn tokens_of(grid: GridSpec, image: usize, view: u32) -> Vec<u32> {
    let token = |i: usize| scramble((image * 1000 + view as usize) as u64 * 100_000 + i as u64) as u32;
    (0..grid.num_tokens()).map(|i| token(i) & ((1u32 << grid.bits) - 1)).collect()
}

/// An ImageNet-like key: classes in order, numbers within them not.
pub(crate) fn key_of(job: &JobSpec, image: usize) -> String {
    let class = label_of(job, image);
    format!("n{:08}/n{:08}_{}.JPEG", class, class, scramble(image as u64) % 50_000)
}

pub(crate) fn label_of(job: &JobSpec, image: usize) -> i32 {
    (image * job.classes.len().max(1) / job.source.images.max(1)) as i32
}

/// Pushes one image as every test expects it.
pub(crate) fn push(writer: &mut CacheWriter, job: &JobSpec, image: usize) -> Result<(), CacheError> {
    let key = key_of(job, image);
    if BAD_IMAGES.contains(&image) && job.source.images == 37 {
        return writer.quarantine(image, &key, "decode", "premature end of JPEG file");
    }
    let tokens: Vec<_> = (0..job.num_views).map(|view| tokens_of(job.grid, image, view)).collect();
    let rows: Vec<_> = (0..job.num_views)
        .map(|view| Row {
            tokens: &tokens[view as usize],
            label: label_of(job, image),
            key: &key,
            view,
            crop_x: (scramble(image as u64 + 1) % 90) as i32,
            crop_y: view as i32 * 7,
            flip: view % 2 == 1,
        })
        .collect();
    writer.push_image(image, &rows)
}

/// Pushes everything that is missing and finishes.
pub(crate) fn run(dir: &Path, job: &JobSpec, mode: OpenMode) -> Result<Finished, CacheError> {
    let mut writer = CacheWriter::open(dir, job.clone(), mode)?;
    for image in writer.next_image()..writer.images().end {
        push(&mut writer, job, image)?;
    }
    writer.finish()
}

/// A temporary folder with a finished small cache in `cache/`.
pub(crate) fn small_cache() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    assert!(run(&dir, &small_job(), OpenMode::Resume).unwrap().published);
    (temp, dir)
}

/// Names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Copies the files of a folder.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// The error with its causes, as a command would print it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Signs an edited manifest as the writer would, so that tests reach the checks after that of the signature.
pub(crate) fn sign(text: &str) -> String {
    let digits = text.len() - 4 - 64..text.len() - 4;
    assert!(text[..digits.start].ends_with("\"checksum\": \""), "{text}");
    let unsigned = format!("{}{}{}", &text[..digits.start], "0".repeat(64), &text[digits.end..]);
    let checksum = blake3::hash(unsigned.as_bytes()).to_hex();
    format!("{}{checksum}{}", &text[..digits.start], &text[digits.end..])
}

/// Replaces text in the manifest and signs it.
pub(crate) fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in the manifest");
    fs::write(&path, sign(&text.replacen(from, to, 1))).unwrap();
}
