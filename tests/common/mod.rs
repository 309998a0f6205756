//! Helpers of the black-box tests.
#![allow(clippy::unwrap_used, dead_code, missing_docs)] // in a test, a panic is the report

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The program, without the environment variables that a launcher would set.
pub(crate) fn tokengrid() -> Command {
    let mut command = Command::cargo_bin("tokengrid").expect("the program is built for the tests");
    for name in [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "SLURM_STEP_ID",
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "TOKENGRID_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command that must succeed and prints one JSON object.
#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = tokengrid().args(arguments).arg("--json").output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} failed: {stderr}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object")
}

/// Runs a command that must fail with `code`; its message, which must be one line.
#[track_caller]
pub(crate) fn fails(arguments: &[&str], code: i32) -> String {
    let output = tokengrid().args(arguments).arg("--quiet").output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty() || code == 1, "nothing on stdout: {arguments:?}");
    assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
    if stderr.starts_with("tokengrid: ") {
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    }
    stderr
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of `classes` bundled class folders with `per_class` photographs each.
pub(crate) fn photos(into: &Path, classes: usize, per_class: usize) -> PathBuf {
    let folder = into.join("photos");
    for class in sorted(&repository("data/photos")).into_iter().take(classes) {
        let target = folder.join(class.file_name().unwrap());
        std::fs::create_dir_all(&target).unwrap();
        for photo in sorted(&class).into_iter().take(per_class) {
            std::fs::copy(&photo, target.join(photo.file_name().unwrap())).unwrap();
        }
    }
    folder
}

/// Class folders with `count` images: links to the bundled photographs under new names.
pub(crate) fn many_photos(into: &Path, count: usize) -> PathBuf {
    let photos: Vec<PathBuf> = sorted(&repository("data/photos")).iter().flat_map(|class| sorted(class)).collect();
    let targets: Vec<PathBuf> = photos.iter().map(|photo| std::fs::canonicalize(photo).unwrap()).collect();
    let folder = into.join("many");
    for index in 0..count {
        let class = folder.join(format!("n{:08}", index % 4));
        std::fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&targets[index % targets.len()], class.join(format!("{index:05}.jpg"))).unwrap();
    }
    folder
}

/// Entries of a folder by name.
pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Archives the contents of `folder`.
pub(crate) fn tar(folder: &Path, archive: &Path) {
    let status =
        std::process::Command::new("tar").args(["-C", text(folder), "-cf", text(archive), "."]).status().unwrap();
    assert!(status.success());
}

/// Writes the class folders `$1` as Parquet in the layout of Hugging Face's imagenet-1k to `$2`.
pub(crate) const PARQUET: &str = r#"
import pathlib, sys
import pyarrow as pa
import pyarrow.parquet as pq

source, out = map(pathlib.Path, sys.argv[1:])
classes = sorted(folder.name for folder in source.iterdir())
files = sorted(source.glob("*/*"), key=lambda path: path.name[::-1])
images = [
    {"bytes": path.read_bytes(), "path": f"{path.stem}_{path.parent.name}{path.suffix}"} for path in files
]
labels = [classes.index(path.parent.name) for path in files]
kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
pq.write_table(table, out, row_group_size=4)
"#;

/// A fixed sequence of numbers from 0 to 1.
pub(crate) struct Draws(pub u64);

impl Draws {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
