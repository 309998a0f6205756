"""The stream of batches is that of the command, for any number of processes and after any number of resumes."""

import itertools
import pickle

import numpy as np
import pytest

import tokengrid
from conftest import make_cache

#: Rows of the first three batches of 4 of 10 images of 3 views, seed 7, from the Rust loader (tests/python.rs).
FOREVER = "PINNED"


def rows_of(loader, batches):
    return np.concatenate([batch.rows for batch in itertools.islice(loader, batches)])


def test_batches_hold_what_the_rows_hold(written):
    path, tokens, labels, _ = written
    loader = tokengrid.Loader(tokengrid.TokenCache(path), batch_size=8, seed=3)
    for batch in itertools.islice(loader, 20):
        assert batch.tokens.shape == (8, 16) and batch.tokens.dtype == np.int64 and batch.labels.dtype == np.int64
        assert np.array_equal(batch.tokens, tokens[batch.rows]) and np.array_equal(batch.labels, labels[batch.rows])


def test_every_image_once_per_epoch_and_every_view_once_per_block(written):
    loader = tokengrid.Loader(written[0], batch_size=25, seed=1)
    epochs = [rows_of(loader, 2) for _ in range(4)]
    for rows in epochs:
        assert sorted(rows // 2) == list(range(50))
    for first, second in (epochs[:2], epochs[2:]):
        assert sorted(np.concatenate([first, second])) == list(range(100))
    assert (loader.epoch, loader.position, loader.epoch_fraction) == (4, 200, 4.0)


def test_any_number_of_processes_sees_the_same_global_batches(written):
    cache = tokengrid.TokenCache(written[0])
    one = rows_of(tokengrid.Loader(cache, 12, seed=5), 20).reshape(20, 12)
    for world in (2, 3, 4):
        parts = [tokengrid.Loader(cache, 12 // world, 5, rank, world) for rank in range(world)]
        ranks = [rows_of(part, 20).reshape(20, -1) for part in parts]
        assert np.array_equal(np.concatenate(ranks, axis=1), one)


def test_resumes_are_exact_and_elastic(written):
    cache = tokengrid.TokenCache(written[0])
    whole = rows_of(tokengrid.Loader(cache, 12, seed=5), 30)
    seen, state = [], None
    # Three resumes, each with other processes: 5 batches of 12, 10 of 2 x 6, 15 of 3 x 4.
    for batches, world in ((5, 1), (10, 2), (15, 3)):
        loaders = [tokengrid.Loader(cache, 12 // world, 0, rank, world) for rank in range(world)]
        for loader in loaders:
            loader.load_state_dict(state) if state else loader.load_state_dict(tokengrid.Loader(cache, 12, 5).state_dict())
        parts = [rows_of(loader, batches).reshape(batches, -1) for loader in loaders]
        seen.append(np.concatenate(parts, axis=1).ravel())
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = pickle.loads(pickle.dumps(states[0]))
    assert np.array_equal(np.concatenate(seen), whole)


def test_a_split_is_a_stream_of_its_own(written):
    loader = tokengrid.Loader(written[0], batch_size=10, split="val")
    assert sorted(rows_of(loader, 2)) == list(range(80, 100)) and loader.images_per_epoch == 10
    with pytest.raises(tokengrid.CacheValueError, match="has no split 'test': it has train, val"):
        tokengrid.Loader(written[0], split="test")


def test_states_of_other_streams_are_refused(written, tmp_path):
    state = tokengrid.Loader(written[0]).state_dict()
    make_cache(tmp_path / "other", seed=9)
    with pytest.raises(tokengrid.CacheMismatchError, match="content_hash"):
        tokengrid.Loader(tmp_path / "other").load_state_dict(state)
    with pytest.raises(tokengrid.CacheMismatchError, match="split is None there, val here"):
        tokengrid.Loader(written[0], split="val").load_state_dict(state)


def test_settings_are_checked(written, monkeypatch):
    for settings, words in [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2, expected less than world_size 2"),
        ({"rank": 1}, "world_size is missing"),
    ]:
        with pytest.raises(tokengrid.CacheValueError, match=words):
            tokengrid.Loader(written[0], **settings)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (tokengrid.Loader(written[0]).rank, tokengrid.Loader(written[0]).world_size) == (1, 2)


def test_a_pickled_loader_goes_on_where_it_was(written):
    loader = tokengrid.Loader(written[0], 8, seed=2)
    rows_of(loader, 3)
    copy = pickle.loads(pickle.dumps(loader))
    assert np.array_equal(rows_of(copy, 5), rows_of(loader, 5))
