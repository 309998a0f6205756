"""Caches in a bucket."""

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


def test_what_is_not_there():
    with pytest.raises(tokengrid.CacheError, match="nothing-here"):
        tokengrid.TokenCache(f"{BUCKET}/nothing-here")
