//! Files of rows of other programs: lines of JSON, tokens without a header, LlamaGen's folders.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::fs;
use std::path::Path;
use tokengrid_cache::{
    ImportOptions, OpenMode, TokenCache, TokenType, export_jsonl, export_llamagen, export_memmap, import_jsonl,
    import_llamagen, import_memmap, verify,
};

const RESUME: OpenMode = OpenMode::Resume;

fn options(views: u32) -> ImportOptions {
    ImportOptions { grid: (5, 3), views, bits: Some(18), ..ImportOptions::default() }
}

/// Fails unless the rows of two caches have the same tokens and labels.
#[track_caller]
fn same_rows(dir: &Path, cache: &TokenCache) {
    assert!(verify(dir, &mut |_, _| {}).unwrap().is_ok());
    let again = TokenCache::open(dir).unwrap();
    assert_eq!((again.num_rows(), again.num_views()), (cache.num_rows(), cache.num_views()));
    for row in 0..cache.num_rows() {
        assert_eq!(again.packed_row(row), cache.packed_row(row), "row {row}");
        assert_eq!(again.label(row), cache.label(row), "row {row}");
    }
}

#[test]
fn lines_of_json_go_out_and_come_back() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let out = temp.path().join("lines");
    assert_eq!(export_jsonl(&cache, &out, RESUME).unwrap(), ["pretokenized.jsonl"]);
    let file = out.join("pretokenized.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let tokens = tokens_of(cache.grid(), 1, 0).iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(text.lines().next().unwrap(), format!("{{\"class_id\": 0, \"tokens\": [{tokens}]}}"));
    let again = temp.path().join("again");
    import_jsonl(&file, &options(2), &again, RESUME).unwrap();
    same_rows(&again, &cache);
    // Once more: nothing to do. Other rows: refused.
    import_jsonl(&file, &options(2), &again, RESUME).unwrap();
}

#[test]
fn lines_that_do_not_fit_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let (file, out) = (temp.path().join("lines.jsonl"), temp.path().join("cache"));
    let square = ImportOptions { grid: (0, 0), views: 2, ..ImportOptions::default() };
    for (text, expected) in [
        ("", "no rows in"),
        ("{\"tokens\": [1, 2, 3, 4]}\n", "a multiple of --views 2"),
        ("{\"tokens\": [1, 2, 3]}\n{\"tokens\": [1, 2, 3]}\n", "a square"),
        ("{\"tokens\": [1, 2, 3, 4]}\n{\"tokens\": [1]}\n", "(line 2)"),
        ("{\"tokens\": [1, 2, 3, 4]}\n\n{\"tokens\": 7}\n", "(line 3)"),
        ("{\"tokens\": [1, 2, 3, 4]}\n{\"tokens\": [1, 2, 3, -4]}\n", "token is -4"),
        (
            "{\"class_id\": 1, \"tokens\": [1, 2, 3, 4]}\n{\"class_id\": 2, \"tokens\": [1, 2, 3, 4]}\n",
            "class_id of a later",
        ),
        ("[1]\n", "line is"),
    ] {
        fs::write(&file, text).unwrap();
        let error = import_jsonl(&file, &square, &out, RESUME).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nshould say {expected}");
        assert!(!out.exists(), "{error}");
    }
    fs::write(
        &file,
        "{\"class_id\": 3, \"tokens\": [1, 2, 3, 4], \"more\": {}}\n{\"label\": 3, \"tokens\": [5, 6, 7, 8]}",
    )
    .unwrap();
    import_jsonl(&file, &square, &out, RESUME).unwrap();
    let cache = TokenCache::open(&out).unwrap();
    assert_eq!((cache.grid().to_string(), cache.num_views(), cache.image_label(0)), ("2x2".into(), 2, 3));
}

#[test]
fn tokens_without_a_header_go_out_and_come_back() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    for (name, kind) in [("uint32", TokenType::U32), ("int32", TokenType::I32), ("int64", TokenType::I64)] {
        assert_eq!(name.parse(), Ok(kind));
        let out = temp.path().join(name);
        export_memmap(&cache, kind, &out, RESUME).unwrap();
        let (tokens, labels) = (out.join("tokens.bin"), out.join("labels.npy"));
        assert_eq!(fs::metadata(&tokens).unwrap().len(), 68 * 15 * kind.width() as u64);
        let again = temp.path().join(format!("again-{name}"));
        import_memmap(&tokens, kind, Some(&labels), None, &options(2), &again, RESUME).unwrap();
        same_rows(&again, &cache);
    }
    let error = export_memmap(&cache, TokenType::U16, &temp.path().join("16"), RESUME).unwrap_err().to_string();
    assert!(error.contains("--dtype uint32"), "{error}");
    let tokens = temp.path().join("uint32/tokens.bin");
    let error = import_memmap(&tokens, TokenType::U32, None, None, &options(7), &temp.path().join("x"), RESUME);
    assert!(error.unwrap_err().to_string().contains("a multiple of 420 bytes"));
}

#[test]
fn the_header_of_speedruns_is_known_by_all_of_its_facts() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("tokens.bin");
    let tokens: Vec<u16> = (0..600).map(|i| i * 109).collect();
    let mut header = vec![0u32; 256];
    header[..3].copy_from_slice(&[20_240_520, 1, 600]);
    let bytes = |header: &[u32]| -> Vec<u8> {
        let header = header.iter().flat_map(|number| number.to_le_bytes());
        header.chain(tokens.iter().flat_map(|token| token.to_le_bytes())).collect()
    };
    let wanted = ImportOptions { grid: (2, 2), bits: Some(16), ..ImportOptions::default() };
    fs::write(&file, bytes(&header)).unwrap();
    let out = temp.path().join("out");
    import_memmap(&file, TokenType::U16, None, None, &wanted, &out, RESUME).unwrap();
    let cache = TokenCache::open(&out).unwrap();
    let mut first = [0; 4];
    cache.tokens_into(0, &mut first);
    assert_eq!((cache.num_rows(), first), (150, [0, 109, 218, 327]));
    // A header that is not that of the file, or of another type: nothing is guessed.
    let out = temp.path().join("other");
    let refused = |kind, words: &str| {
        let error = import_memmap(&file, kind, None, None, &wanted, &out, RESUME).unwrap_err().to_string();
        assert!(error.contains(words) && !out.exists(), "{error}");
    };
    refused(TokenType::U32, "give --dtype uint16");
    header[2] = 601;
    fs::write(&file, bytes(&header)).unwrap();
    refused(TokenType::U16, "number of tokens is 600 (2224 bytes, of which 1024 are the header), expected 601");
    fs::write(&file, &bytes(&header)[..1000]).unwrap();
    refused(TokenType::U16, "number of tokens is 0 (1000 bytes");
    header[1] = 2;
    fs::write(&file, bytes(&header)).unwrap();
    refused(TokenType::U16, "version of the header is 2, expected 1");
    // Any other beginning is tokens.
    header[0] = 1;
    fs::write(&file, bytes(&header)).unwrap();
    import_memmap(&file, TokenType::U16, None, None, &wanted, &out, RESUME).unwrap();
    assert_eq!(TokenCache::open(&out).unwrap().num_rows(), (512 + 600) / 4);
}

#[test]
fn folders_of_llamagen_go_out_and_come_back() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let out = temp.path().join("llamagen");
    let written = export_llamagen(&cache, &out, RESUME).unwrap();
    assert_eq!(written, ["imagenet256_codes", "imagenet256_labels"]);
    assert_eq!(fs::read_dir(out.join(&written[0])).unwrap().count(), 34);
    let error = export_llamagen(&cache, &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("imagenet256_codes"), "{error}");
    export_llamagen(&cache, &out, OpenMode::Overwrite).unwrap();
    let again = temp.path().join("again");
    import_llamagen(&out, &options(1), &again, RESUME).unwrap();
    same_rows(&again, &cache);
    let left: Vec<_> = names(&out).into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(left, [""; 0]);
    let error = import_llamagen(temp.path(), &options(1), &temp.path().join("x"), RESUME).unwrap_err().to_string();
    assert!(error.contains("one pair NAME_codes, NAME_labels"), "{error}");
}
