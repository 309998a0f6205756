//! What the fuzzers found worth keeping, and small caches of today: read without a panic.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use std::path::PathBuf;
use tokengrid_cache::{OpenMode, export_npy, fuzzing};

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    tokengrid_test_support::corpus(env!("CARGO_MANIFEST_DIR"), target)
}

#[test]
fn the_corpus_of_every_target_is_read() {
    for (path, bytes) in corpus("footer") {
        println!("{path}");
        fuzzing::footer(tempfile::tempdir().unwrap().path(), &bytes);
    }
    for (path, bytes) in corpus("npy") {
        println!("{path}");
        fuzzing::npy(tempfile::tempdir().unwrap().path(), &bytes);
    }
    corpus("manifest").iter().for_each(|(_, bytes)| fuzzing::manifest(bytes));
    corpus("packed_rows").iter().for_each(|(_, bytes)| fuzzing::packed_rows(bytes));
}

/// Changes a few bytes, cuts some out, doubles some, or brings in some of another file.
fn mutate(bytes: &[u8], other: &[u8], random: &mut u64) -> Vec<u8> {
    let mut below = |n: usize| {
        *random = scramble(*random);
        (*random % n.max(1) as u64) as usize
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + below(6) {
        let (place, length) = (below(bytes.len()), below(40));
        let end = (place + length).min(bytes.len());
        match below(7) {
            _ if bytes.is_empty() => bytes.push(below(256) as u8),
            0 | 1 => bytes[place] ^= 1 << below(8),
            2 => bytes[place] = [0, 1, 0x7F, 0x80, 0xFF, b'0', b'9', b'-'][below(8)],
            3 => drop(bytes.drain(place..end)),
            4 => bytes.extend_from_within(place..end),
            5 => {
                let from = below(other.len());
                let piece = other[from..(from + length).min(other.len())].to_vec();
                bytes.splice(place..end, piece);
            }
            _ => bytes.truncate(place),
        }
    }
    bytes
}

/// A small fuzzer without a nightly toolchain: the corpus, changed at random, a fixed number of times
/// (`TOKENGRID_MUTATIONS` for another one).
#[test]
fn mutations_of_the_corpus_are_read_or_refused() {
    let mutations = std::env::var("TOKENGRID_MUTATIONS").map_or(1500, |text| text.parse().unwrap());
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 4] = [
        ("footer", |bytes| fuzzing::footer(tempfile::tempdir().unwrap().path(), bytes)),
        ("npy", |bytes| fuzzing::npy(tempfile::tempdir().unwrap().path(), bytes)),
        ("manifest", fuzzing::manifest),
        ("packed_rows", fuzzing::packed_rows),
    ];
    for (name, target) in targets {
        let corpus = corpus(name);
        let mut random = mutations as u64;
        for trial in 0..mutations {
            let (_, bytes) = &corpus[trial % corpus.len()];
            let (_, other) = &corpus[(trial / corpus.len()) % corpus.len()];
            let mutated = mutate(bytes, other, &mut random);
            let failed = std::panic::catch_unwind(|| target(&mutated)).is_err();
            assert!(!failed, "{name}, mutation {trial}: {:?}", String::from_utf8_lossy(&mutated));
        }
    }
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
        export_npy(&cache, &dir.join("npy"), OpenMode::Resume).unwrap();
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
