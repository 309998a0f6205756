//! pyarrow, with no code of ours, reads a cache and gets the same tokens back.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{json, photos, text};
use std::process::Command;

/// Reads every shard with pyarrow and prints tokens, labels and keys as JSON.
const READER: &str = r#"
import glob, json, sys
import numpy as np
import pyarrow.parquet as pq

rows = []
for path in sorted(glob.glob(sys.argv[1] + "/*.parquet")):
    table = pq.read_table(path)
    meta = pq.read_metadata(path).metadata
    height, width = map(int, meta[b"tokengrid.grid"].decode().split("x"))
    bits = int(meta[b"tokengrid.bits"])
    for row in table.to_pylist():
        stream = np.unpackbits(np.frombuffer(row["tokens"], np.uint8), bitorder="little")
        tokens = stream[: height * width * bits].reshape(-1, bits) @ (1 << np.arange(bits))
        rows.append({"key": row["key"], "label": row["label"], "tokens": tokens.reshape(height, width).tolist()})
print(json.dumps(rows))
"#;

#[test]
fn pyarrow_reads_the_same_tokens() {
    let Some(python) = tokengrid_test_support::python_with("import numpy, pyarrow") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let source = photos(folder.path(), 3, 2);
    json(&[
        "tokenize",
        text(&source),
        "--tokenizer",
        "tiny",
        "--size",
        "32",
        "--views",
        "center+flip",
        "--out",
        text(&cache),
    ]);
    let output = Command::new(python).args(["-c", READER, text(&cache)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), 12);
    for (i, theirs) in rows.iter().enumerate() {
        let ours = json(&["cache", "show", text(&cache), "--index", &i.to_string()]);
        for field in ["key", "label", "tokens"] {
            assert_eq!(ours[field], theirs[field], "row {i}, {field}");
        }
    }
}
