//! What the fuzzers found worth keeping, and small caches of today: read without a panic.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use std::fs;
use std::path::PathBuf;

use common::*;
use tokengrid_cache::{OpenMode, export_npy, fuzzing};

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = names(&dir).into_iter().map(|name| dir.join(name)).collect();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

#[test]
fn the_corpus_of_every_target_is_read() {
    for (path, bytes) in corpus("footer") {
        println!("{}", path.display());
        fuzzing::footer(tempfile::tempdir().unwrap().path(), &bytes);
    }
    for (path, bytes) in corpus("npy") {
        println!("{}", path.display());
        fuzzing::npy(tempfile::tempdir().unwrap().path(), &bytes);
    }
    corpus("manifest").iter().for_each(|(_, bytes)| fuzzing::manifest(bytes));
    corpus("packed_rows").iter().for_each(|(_, bytes)| fuzzing::packed_rows(bytes));
}

/// Writes the seeds of a new corpus: `TOKENGRID_SEEDS=<folder> cargo test --test corpus -- --ignored`.
#[test]
#[ignore = "writes files"]
fn write_seeds() {
    let out = PathBuf::from(std::env::var_os("TOKENGRID_SEEDS").unwrap());
    let temp = tempfile::tempdir().unwrap();
    for (number, images) in [4, 9].into_iter().enumerate() {
        let mut job = small_job();
        job.source.images = images;
        job.groups_per_shard = 4;
        let dir = temp.path().join(number.to_string());
        run(&dir, &job, OpenMode::Resume).unwrap();
        let cache = tokengrid_cache::TokenCache::open(&dir).unwrap();
        export_npy(&cache, &dir.join("npy")).unwrap();
        let seeds = [
            ("footer", "shard-00000-00000.parquet"),
            ("manifest", "manifest.json"),
            ("npy", "npy/labels.npy"),
            ("packed_rows", "npy/tokens.npy"),
        ];
        for (target, file) in seeds {
            fs::create_dir_all(out.join(target)).unwrap();
            fs::copy(dir.join(file), out.join(target).join(format!("seed-{number}"))).unwrap();
        }
    }
}
