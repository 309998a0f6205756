//! The Python reader of the book, run as it is printed there: what it reads is what was written.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use serde_json::Value;
use std::process::Command;

const BOOK: &str = include_str!("../../docs/src/cache-format.md");

#[test]
fn the_reader_of_the_book_reads_what_was_written() {
    let Some(python) = tokengrid_test_support::python_with("import numpy, pyarrow") else { return };
    let (temp, dir) = small_cache();
    let code = BOOK.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.lines().filter(|line| !line.trim().is_empty()).count() <= 30, "it is meant to be short");
    std::fs::write(temp.path().join("book.py"), code).unwrap();
    let script = "
import glob, json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import book
for path in sorted(glob.glob(sys.argv[2] + '/shard-*.parquet')):
    for rows, mapped in zip(book.read_shard(path), book.map_tokens(path), strict=True):
        n = len(rows['key'])
        again = book.unpack(np.asarray(mapped), 15, 18).reshape(n, 5, 3)
        assert (again == rows['tokens']).all()
        for i in range(n):
            row = {name: column[i] for name, column in rows.items()}
            print(json.dumps({**row, 'tokens': row['tokens'].ravel().tolist()}))
";
    let output = Command::new(python).arg("-c").arg(script).arg(temp.path()).arg(&dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let job = small_job();
    let good = (0..37).filter(|image| !BAD_IMAGES.contains(image));
    let expected: Vec<_> = good.flat_map(|image| [(image, 0), (image, 1)]).collect();
    assert_eq!(rows.len(), expected.len());
    for (row, (image, view)) in rows.iter().zip(expected) {
        let tokens: Vec<u32> = serde_json::from_value(row["tokens"].clone()).unwrap();
        assert_eq!(tokens, tokens_of(job.grid, image, view));
        assert_eq!(row["key"], key_of(&job, image));
        assert_eq!((&row["label"], &row["view"]), (&label_of(&job, image).into(), &view.into()));
        assert_eq!((&row["crop_y"], &row["flip"]), (&(view * 7).into(), &(view == 1).into()));
    }
}
