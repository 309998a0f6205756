"""Caches in a bucket."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from conftest import make_cache

import tokengrid

BUCKET = os.environ.get("TOKENGRID_BUCKET")

pytestmark = pytest.mark.skipif(BUCKET is None, reason="TOKENGRID_BUCKET names no bucket: `cargo test --test python` does")


@pytest.fixture(autouse=True)
def stage(tmp_path):
    tokengrid.stage_in(tmp_path / "stage")
    yield tmp_path / "stage"
    tokengrid.stage_in()


def test_a_cache_in_a_bucket_is_written_and_read(stage, tmp_path):
    tokens, labels, keys = make_cache(f"{BUCKET}/cache")
    make_cache(tmp_path / "local")
    cache = tokengrid.TokenCache(f"{BUCKET}/cache")
    assert cache.path == f"{BUCKET}/cache" and list(stage.glob("*/*.parquet"))
    assert np.array_equal(cache[:], tokens) and np.array_equal(cache.labels, labels) and list(cache.keys) == keys
    assert cache.content_hash == tokengrid.TokenCache(tmp_path / "local").content_hash and cache.verify()
    copy = pickle.loads(pickle.dumps(cache))
    assert np.shares_memory(copy.packed(0, 2), cache.packed(0, 2))
    batches = tokengrid.Loader(f"{BUCKET}/cache", 8, seed=5), tokengrid.Loader(tmp_path / "local", 8, seed=5)
    for _ in range(10):
        theirs, ours = map(next, batches)
        assert np.array_equal(theirs.tokens, ours.tokens)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_is_staged(start):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from tokengrid.torch import TokenDataset

    tokens, _, _ = make_cache(f"{BUCKET}/workers-{start}", images=20)
    data = TokenDataset(f"{BUCKET}/workers-{start}")
    loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context=start)
    assert np.array_equal(torch.cat([batch.tokens for batch in loader]), tokens)


def test_a_stage_that_is_too_small_is_named_with_its_function(stage):
    make_cache(f"{BUCKET}/large")
    tokengrid.stage_in(stage, 1000)
    with pytest.raises(tokengrid.CacheIOError, match=r"limit_bytes of tokengrid.stage_in") as caught:
        tokengrid.TokenCache(f"{BUCKET}/large")
    assert "--" not in str(caught.value)


def read_elsewhere(url, results):
    results.put(tokengrid.TokenCache(url)[:].sum())


def test_a_forked_process_opens_caches_of_its_own():
    """Its parent has connections, which are served by threads that it does not have."""
    tokens, _, _ = make_cache(f"{BUCKET}/forked")
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=read_elsewhere, args=(f"{BUCKET}/forked", results))
    child.start()
    assert results.get(timeout=60) == tokens.sum()
    child.join()


def test_what_is_not_there():
    with pytest.raises(tokengrid.CacheError, match="nothing-here"):
        tokengrid.TokenCache(f"{BUCKET}/nothing-here")
