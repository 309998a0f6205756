//! The program with a server that the test starts. It uses `common`.
#![allow(clippy::unwrap_used, dead_code)] // in a test, a panic is the report

use crate::common::{json, sorted, tar, text, tokengrid};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokengrid_test_support::buckets::{Kind, ObjectServer};

/// Pixels of a view: a grid of 4 x 4 tokens of the shipped tokenizer.
pub(crate) const SIZE: &str = "32";

/// A server, and folders.
pub(crate) struct World {
    pub folder: tempfile::TempDir,
    pub server: ObjectServer,
}

impl World {
    /// With the server that starts fastest. `None`, with the reason recorded, where there is no server.
    #[track_caller]
    pub(crate) fn new() -> Option<World> {
        World::with(Kind::Moto)
    }

    #[track_caller]
    pub(crate) fn with(kind: Kind) -> Option<World> {
        let server = ObjectServer::start(kind)?;
        Some(World { folder: tempfile::tempdir().unwrap(), server })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, which finds the server at `address` and stages in the folder `stage`.
    pub(crate) fn command(&self, address: SocketAddr, stage: &str) -> assert_cmd::Command {
        let mut command = tokengrid();
        command.env("TOKENGRID_STAGE_DIR", self.path(stage)).envs(self.server.variables(address));
        command
    }

    /// Runs a command that must succeed and prints one JSON object.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.json_by(self.command(self.server.address(), "stage"), arguments)
    }

    #[track_caller]
    pub(crate) fn json_by(&self, mut command: assert_cmd::Command, arguments: &[&str]) -> Value {
        let output = command.args(arguments).arg("--json").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must fail; its message, which must be one line.
    #[track_caller]
    pub(crate) fn fails_by(&self, mut command: assert_cmd::Command, arguments: &[&str]) -> String {
        let output = command.args(arguments).arg("--quiet").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && !stderr.contains("panicked"), "one line: {stderr}");
        stderr
    }
}

/// Arguments that make a cache of a source: small, and in many row groups.
pub(crate) fn tokenize<'a>(source: &'a str, out: &'a str) -> Vec<&'a str> {
    let fixed = ["tokenize", source, "--tokenizer", "tiny", "--size", SIZE, "--out", out];
    [&fixed[..], &["--rows-per-group", "4", "--batch-size", "2", "--threads", "1"]].concat()
}

/// A cache of `source` in a local folder; its content hash.
#[track_caller]
pub(crate) fn local_hash(source: &Path, out: &Path) -> String {
    let made = json(&tokenize(text(source), text(out)));
    made["content_hash"].as_str().unwrap().to_owned()
}

/// Two WebDataset shards of class folders, the images of all classes mixed.
pub(crate) fn shards(source: &Path, into: &Path) {
    std::fs::create_dir(into).unwrap();
    for shard in 0..2 {
        let samples = into.join(format!("samples-{shard}"));
        std::fs::create_dir(&samples).unwrap();
        for (label, class) in sorted(source).iter().enumerate() {
            for image in sorted(class).iter().skip(shard).step_by(2) {
                let stem = image.file_stem().unwrap().to_str().unwrap();
                std::fs::copy(image, samples.join(image.file_name().unwrap())).unwrap();
                std::fs::write(samples.join(format!("{stem}.cls")), label.to_string()).unwrap();
            }
        }
        tar(&samples, &into.join(format!("{shard:03}.tar")));
        std::fs::remove_dir_all(samples).unwrap();
    }
}
