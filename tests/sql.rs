//! The examples of docs/src/sql.md, run as written, over a real cache.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{json, photos, repository, text};
use std::path::Path;
use std::process::{Command, Output};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};

/// The Python blocks of a page, in order.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn python(python: &str, code: &str, folder: &Path) -> Output {
    let settings = [("HF_HUB_OFFLINE", "1"), ("PYTHONIOENCODING", "utf-8"), ("HF_HOME", "hf-home")];
    Command::new(python).args(["-c", code]).current_dir(folder).envs(settings).output().unwrap()
}

#[test]
fn the_examples_of_the_page_run_and_print_what_is_there() {
    let Some(interpreter) = tokengrid_test_support::python_with("import pyarrow") else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 3, 3);
    let first = common::sorted(&common::sorted(&source)[0])[0].clone();
    std::fs::copy(&first, first.with_file_name("copy.JPEG")).unwrap();
    let cache = folder.path().join("cache");
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&cache)]);
    let (more, val, both) = (folder.path().join("more"), folder.path().join("val"), folder.path().join("both"));
    std::fs::create_dir(&more).unwrap();
    json(&["tokenize", text(&photos(&more, 3, 2)), "--tokenizer", "tiny", "--size", "32", "--out", text(&val)]);
    let [train, val] = [("train", &cache), ("val", &val)].map(|(split, dir)| format!("{split}={}", text(dir)));
    json(&["cache", "merge", text(&both), &train, &val]);
    let page = std::fs::read_to_string(repository("docs/src/sql.md")).unwrap();
    // What each block printed; nothing where a package is missing.
    let mut printed = Vec::new();
    for block in blocks(&page) {
        let output = python(&interpreter, block, folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let missing = stderr.lines().find(|line| line.starts_with("ModuleNotFoundError"));
        if let Some(missing) = missing {
            tokengrid_test_support::skip(missing);
        }
        assert!(output.status.success() || missing.is_some(), "{block}\n{stderr}");
        printed.push(missing.is_none().then(|| String::from_utf8(output.stdout).unwrap()));
    }
    let [duckdb, splits, numbers, polars, datasets] = printed.try_into().expect("the page has five blocks");
    let expect = |printed: &Option<String>, text: &str| {
        assert!(printed.as_ref().is_none_or(|printed| printed.contains(text)), "{text} in {printed:?}");
    };
    expect(&duckdb, "copy.JPEG");
    expect(&duckdb, "tokengrid.grid");
    // Three classes of three images, and the copy.
    expect(&splits, "10 rows to train on, the first one ");
    expect(&splits, "val");
    if numbers.is_some() {
        // Four images of class 0, and the most frequent code as our own reader counts it.
        expect(&numbers, "(4, 4, 4)");
        let mut counts = std::collections::BTreeMap::<u64, usize>::new();
        for row in 0..4 {
            let shown = json(&["cache", "show", text(&cache), "--index", &row.to_string()]);
            for token in shown["tokens"].as_array().unwrap().iter().flat_map(|line| line.as_array().unwrap()) {
                *counts.entry(token.as_u64().unwrap()).or_default() += 1;
            }
        }
        let most = *counts.values().max().unwrap();
        let code = counts.iter().find(|(_, count)| **count == most).unwrap().0;
        expect(&numbers, &format!("the most frequent code of class 0: {code}\n"));
    }
    expect(&polars, "images");
    expect(&datasets, "36 bytes");
    if datasets.is_some() {
        // Rows that end in zeros are as long as all others.
        let zeros = folder.path().join("zeros");
        std::fs::create_dir(&zeros).unwrap();
        let mut job = JobSpec::new(GridSpec { height: 4, width: 4, bits: 18 }, 3, 1);
        job.rows_per_group = 2;
        let mut writer = CacheWriter::open(&zeros.join("cache"), job, OpenMode::Resume).unwrap();
        for image in 0..3 {
            let mut tokens = [0; 16];
            tokens[0] = 1000 + image as u32;
            let key = format!("{image}.png");
            let row = Row { tokens: &tokens, label: 0, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(image, &[row]).unwrap();
        }
        writer.finish().unwrap();
        let output = python(&interpreter, blocks(&page)[4], &zeros);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("sum of all tokens: 3003"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
}
