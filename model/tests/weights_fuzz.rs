//! The corpora of the fuzz targets of `fuzz/`, replayed and mutated at random on any toolchain.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::path::PathBuf;
use tokengrid_model::weights::fuzzing;

type Target = fn(&[u8]);
type Corpus = Vec<(String, Vec<u8>)>;

/// The corpus of a target.
fn kept(target: &str) -> Corpus {
    tokengrid_test_support::corpus(env!("CARGO_MANIFEST_DIR"), target)
}

/// The files of a folder below the crate's.
fn files(folder: &str) -> Corpus {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

fn targets() -> [(&'static str, Target, Corpus); 3] {
    let archive = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile.tar.gz");
    let hostile = tokengrid_test_support::archived(&archive);
    [
        ("file", fuzzing::file, [files("tests/fixtures/torch"), hostile].concat()),
        ("legacy", fuzzing::legacy, kept("legacy")),
        ("pickle", fuzzing::pickle, kept("pickle")),
    ]
}

#[test]
fn the_corpus_of_every_target_is_read_or_refused() {
    for (name, target, corpus) in targets() {
        for (path, bytes) in corpus {
            println!("{name}: {path}");
            target(&bytes);
        }
    }
}

/// splitmix64.
fn below(random: &mut u64, limit: usize) -> usize {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
}

/// Changes, removes or repeats a few bytes, or inserts some of another file.
fn mutate(bytes: &[u8], other: &[u8], random: &mut u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + below(random, 6) {
        let (place, length) = (below(random, bytes.len()), below(random, 40));
        let end = (place + length).min(bytes.len());
        match below(random, 7) {
            _ if bytes.is_empty() => bytes.push(below(random, 256) as u8),
            0 | 1 => bytes[place] ^= 1 << below(random, 8),
            2 => bytes[place] = [0, 1, 0x7F, 0x80, 0xFF, b'R', b'Q', b'h'][below(random, 8)],
            3 => drop(bytes.drain(place..end)),
            4 => bytes.extend_from_within(place..end),
            5 => {
                let from = below(random, other.len());
                let piece = other[from..(from + length).min(other.len())].to_vec();
                bytes.splice(place..end, piece);
            }
            _ => bytes.truncate(place),
        }
    }
    bytes
}

/// A small fuzzer without a nightly toolchain: a fixed number of changed files (`TOKENGRID_MUTATIONS` for another one).
#[test]
fn changed_files_are_read_or_refused() {
    let mutations = std::env::var("TOKENGRID_MUTATIONS").map_or(2_000, |text| text.parse().unwrap());
    for (name, target, corpus) in targets() {
        let small: Vec<&(String, Vec<u8>)> = corpus.iter().filter(|(_, bytes)| bytes.len() < 4096).collect();
        let mut random = 1;
        for trial in 0..mutations {
            let (path, bytes) = small[trial % small.len()];
            let (_, other) = small[(trial / small.len()) % small.len()];
            let mutated = mutate(bytes, other, &mut random);
            let failed = std::panic::catch_unwind(|| target(&mutated)).is_err();
            assert!(!failed, "{name}, change {trial} of {path}: {mutated:02x?}");
        }
    }
}
