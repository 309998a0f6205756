//! The list of inputs without rows is read record by record, and an altered one is an error.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use std::path::Path;
use tokengrid_cache::{CacheError, Manifest, MergeInput, OpenMode, QuarantineReader, merge};

fn read(dir: &Path) -> Result<Vec<usize>, CacheError> {
    let records = QuarantineReader::open(dir, &Manifest::read(dir)?)?;
    records.map(|record| record.map(|record| record.index)).collect()
}

/// Writes another list and a manifest that vouches for it.
fn replace(dir: &Path, list: &str) {
    let old = Manifest::read(dir).unwrap().quarantine;
    fs::write(dir.join("quarantine.jsonl"), list).unwrap();
    edit_manifest(dir, &old.blake3, blake3::hash(list.as_bytes()).to_hex().as_str());
    edit_manifest(
        dir,
        &format!("\"bytes\": {},\n    \"blake3\"", old.bytes),
        &format!("\"bytes\": {},\n    \"blake3\"", list.len()),
    );
}

#[test]
fn records_come_one_by_one_in_order() {
    let (_temp, dir) = small_cache();
    assert_eq!(read(&dir).unwrap(), BAD_IMAGES);
    let manifest = Manifest::read(&dir).unwrap();
    let mut records = QuarantineReader::open(&dir, &manifest).unwrap();
    assert_eq!(records.next().unwrap().unwrap().key, key_of(&small_job(), 0));
    assert_eq!(records.count(), 2);
}

#[test]
fn an_altered_list_is_an_error_wherever_it_was_altered() {
    let (_temp, dir) = small_cache();
    let path = dir.join("quarantine.jsonl");
    let good = fs::read(&path).unwrap();
    let is_altered = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let error = read(&dir).unwrap_err();
        assert!(matches!(error, CacheError::Import { what: "checksum", .. }), "{what}: {error}");
    };
    for place in 0..good.len() {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        is_altered(&bytes, &format!("byte {place}"));
    }
    is_altered(&[], "empty");
    is_altered(&good[..good.len() - 1], "without the last byte");
    is_altered(&[&good[..], b"\n"].concat(), "a byte longer");
    is_altered(&good.repeat(2), "twice");
    let out = dir.with_extension("out");
    assert!(merge(&out, &[MergeInput::new(&dir)], OpenMode::Resume).is_err());
    assert!(!out.exists(), "nothing is begun with an altered list");
}

#[test]
fn a_list_that_a_manifest_vouches_for_must_be_one() {
    let (_temp, dir) = small_cache();
    let good = fs::read_to_string(dir.join("quarantine.jsonl")).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let joined = |order: &[usize]| order.iter().map(|line| format!("{}\n", lines[*line])).collect::<String>();
    for (list, words) in [
        (joined(&[1, 0, 2]), "input 0"),
        (joined(&[0, 1, 1]), "input 7"),
        (joined(&[0, 1, 2]).replace("36", "99"), "input 99"),
        (joined(&[0, 1]), "number of records is 2, expected 3"),
        ("{}\n".to_owned(), "JSON"),
    ] {
        replace(&dir, &list);
        let error = read(&dir).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    replace(&dir, &joined(&[0, 1, 2]));
    assert_eq!(read(&dir).unwrap(), BAD_IMAGES);
}
