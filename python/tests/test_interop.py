"""Other programs read what the writer wrote; the stream is that of the Rust loader."""

import json
import os

import numpy as np
import pytest

import tokengrid


def unpacked(rows):
    """Tokens of 18 bits out of packed rows, by numpy alone."""
    packed = np.stack([np.frombuffer(row, np.uint8) for row in rows])
    return np.unpackbits(packed, axis=1, bitorder="little").reshape(len(rows), 16, 18) @ (1 << np.arange(18))


def test_pyarrow(written):
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    path, tokens, labels, keys = written
    table = dataset.dataset(sorted(map(str, path.glob("*.parquet")))).to_table()
    assert np.array_equal(unpacked(table["tokens"].to_pylist()), tokens)
    assert table["label"].to_pylist() == labels.tolist() and table["key"].to_pylist() == keys


def test_polars(written):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    path, tokens, labels, keys = written
    frame = polars.read_parquet(f"{path}/*.parquet")
    assert np.array_equal(unpacked(frame["tokens"].to_list()), tokens) and frame["key"].to_list() == keys
    counts = dict(frame.group_by("label").len().iter_rows())
    assert counts == {label: int((labels == label).sum()) for label in set(labels.tolist())}


def test_duckdb(written):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    path, tokens, _, keys = written
    rows = duckdb.sql(f"SELECT tokens, key FROM '{path}/*.parquet' ORDER BY key, view").fetchall()
    order = sorted(range(100), key=lambda row: (keys[row], row % 2))
    assert np.array_equal(unpacked([row[0] for row in rows]), tokens[order])


def test_hugging_face(written, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    path, tokens, labels, _ = written
    files = sorted(map(str, path.glob("*.parquet")))
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert np.array_equal(unpacked(data["tokens"][:]), tokens) and data["label"][:] == labels.tolist()


def test_the_stream_is_that_of_the_rust_loader():
    """`tests/python.rs` writes a cache and what its loader takes from it."""
    if "TOKENGRID_STREAM" not in os.environ:
        pytest.skip("TOKENGRID_STREAM names no stream: `cargo test --test python` does")
    with open(os.environ["TOKENGRID_STREAM"], encoding="utf-8") as file:
        stream = json.load(file)
    cache = tokengrid.TokenCache(stream["cache"])
    for case in stream["streams"]:
        loader = tokengrid.Loader(cache, case["batch_size"], case["seed"], case["rank"], case["world_size"])
        loader.seek(case["position"])
        for rows, tokens, labels in zip(case["rows"], case["tokens"], case["labels"], strict=True):
            batch = next(loader)
            assert batch.rows.tolist() == rows and batch.labels.tolist() == labels
            assert batch.tokens.ravel().tolist() == tokens
