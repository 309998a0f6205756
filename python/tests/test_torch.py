"""PyTorch: data sets through DataLoader and StatefulDataLoader, with workers that are forked and spawned, and resumes."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.utils.data import DataLoader, default_collate  # noqa: E402

import tokengrid  # noqa: E402
from conftest import make_cache  # noqa: E402
from tokengrid.torch import Sample, TokenBatch, TokenDataset, TokenStream  # noqa: E402

WORKERS = [(0, None), (2, "fork"), (2, "spawn")]


@pytest.mark.parametrize(("workers", "start"), WORKERS)
def test_a_data_set_through_a_loader(written, workers, start):
    path, tokens, labels, _ = written
    data = TokenDataset(path)
    loader = DataLoader(data, batch_size=32, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [32, 32, 32, 4] and type(batches[0]) is TokenBatch
    assert np.array_equal(torch.cat([batch.tokens for batch in batches]), tokens)
    assert np.array_equal(torch.cat([batch.labels for batch in batches]), labels)
    assert batches[0].tokens.dtype == torch.int64 and batches[0].labels.dtype == torch.int64


def test_samples_and_other_collates(written):
    path, tokens, labels, _ = written
    data = TokenDataset(path, split="val")
    assert len(data) == 20
    sample = data[3]
    assert type(sample) is Sample and np.array_equal(sample.tokens, tokens[83]) and sample.label == labels[83]
    assert np.array_equal(data[-1].tokens, tokens[99])
    for index in (20, -21):
        with pytest.raises(IndexError):
            data[index]
    # A function of the user's gets a list of samples; samples of other batches are put together.
    loader = DataLoader(data, batch_size=5, collate_fn=lambda samples: [label.item() for _, label in samples])
    assert sum(loader, []) == labels[80:].tolist()
    assert np.array_equal(default_collate([data[0], data[19]]).tokens, tokens[[80, 99]])
    assert len(list(itertools.islice(data, 20))) == 20


def test_what_makes_no_sense(written):
    data = TokenDataset(written[0])
    for read in (lambda: data[0.5], lambda: data["0"], lambda: data.__getitems__([0, None])):
        with pytest.raises(TypeError):
            read()
    with pytest.raises(tokengrid.CacheValueError, match="has no split 'test': it has train, val"):
        TokenDataset(written[0], split="test")
    stream = TokenStream(written[0], 8)
    for size in (1, 4):
        with pytest.raises(TypeError, match=r"DataLoader\(stream, batch_size=None\)"):
            next(iter(DataLoader(stream, batch_size=size)))
    for state in ({}, None, {"version": 1, "seed": 0, "position": 0, "content_hash": "0", "split": None}):
        with pytest.raises(tokengrid.CacheError):
            stream.load_state_dict(state)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_file_that_is_truncated_under_a_worker(tmp_path, start):
    """PyTorch puts a handler of its own over ours in each worker, which would end it with a wrong reason."""
    make_cache(tmp_path / "cache", images=200, grid=(16, 16))
    data = TokenDataset(tmp_path / "cache")
    loader = DataLoader(TruncatedFirst(data), batch_size=64, num_workers=1, multiprocessing_context=start)
    with pytest.raises(tokengrid.DamagedCacheError, match="truncated while it was in use"):
        list(loader)


class TruncatedFirst(torch.utils.data.Dataset):
    """Another program truncates the files when the data set has been opened in its worker."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitems__(self, indices):
        for shard in Path(self.data.cache.path).glob("*.parquet"):
            os.truncate(shard, 4096)
        return self.data.__getitems__(indices)


def expected_stream(path, batches, batch_size=8, **settings):
    return np.stack([batch.tokens for batch in itertools.islice(tokengrid.Loader(path, batch_size, 5, **settings), batches)])


def take(loader, count):
    return np.stack([batch.tokens for batch in itertools.islice(loader, count)])


@pytest.mark.parametrize(("workers", "start"), [*WORKERS, (3, "fork")])
def test_a_stream_is_the_same_with_any_number_of_workers(written, workers, start):
    stream = TokenStream(written[0], 8, seed=5, rank=1, world_size=2)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=start)
    assert np.array_equal(take(loader, 20), expected_stream(written[0], 20, rank=1, world_size=2))


def test_a_stream_without_workers_resumes(written):
    whole = expected_stream(written[0], 30)
    seen, state = [], None
    for batches in (3, 1, 11, 15):
        stream = TokenStream(written[0], 8, seed=5)
        if state is not None:
            stream.load_state_dict(state)
        seen.append(take(DataLoader(stream, batch_size=None), batches))
        state = stream.state_dict()
    assert np.array_equal(np.concatenate(seen), whole)
    assert tokengrid.Loader(written[0]).load_state_dict(state) is None, "states of streams are states of loaders"


@pytest.mark.parametrize("layouts", [[(0, 1), (2, 1), (3, 2), (1, 4)], [(3, 1), (2, 2), (0, 2), (2, 1)]])
def test_resumes_with_other_workers_and_ranks(written, layouts):
    """Each leg has another number of workers and ranks; the loader is dropped while its workers are ahead."""
    whole = expected_stream(written[0], 28)
    seen, state = [], None
    for workers, world in layouts:
        parts = []
        for rank in range(world):
            stream = TokenStream(written[0], 8 // world, 5, rank, world)
            if state is not None:
                stream.load_state_dict(state)
            parts.append(take(DataLoader(stream, batch_size=None, num_workers=workers), 7))
            after = stream.state_dict(7)
        seen.append(np.concatenate(parts, axis=1))
        state = after
    assert np.array_equal(np.concatenate(seen), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_iterations_of_so_many_batches(written, workers):
    whole = expected_stream(written[0], 12)
    stream = TokenStream(written[0], 8, seed=5, num_batches=4)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    assert np.array_equal(np.concatenate([take(loader, None) for _ in range(3)]), whole)
    again = TokenStream(written[0], 8, seed=5, num_batches=4)
    for epoch in (2, 0):
        again.set_epoch(epoch)
        assert np.array_equal(take(DataLoader(again, batch_size=None, num_workers=workers), None), whole[epoch * 4 :][:4])
    with pytest.raises(tokengrid.CacheValueError, match="set_epoch"):
        TokenStream(written[0]).set_epoch(1)


def test_the_rest_of_an_iteration_after_a_resume(written):
    whole = expected_stream(written[0], 8)
    stream = TokenStream(written[0], 8, seed=5, num_batches=4)
    assert np.array_equal(take(stream, 3), whole[:3])
    resumed = TokenStream(written[0], 8, seed=5, num_batches=4)
    resumed.load_state_dict(stream.state_dict())
    assert np.array_equal(take(resumed, None), whole[3:4]) and np.array_equal(take(resumed, None), whole[4:])
    ended = TokenStream(written[0], 8, seed=5, num_batches=4)
    ended.load_state_dict(TokenStream(written[0], 8, seed=5, num_batches=4).state_dict(4))
    assert np.array_equal(take(ended, None), whole[4:])


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("every", [1, 3])
def test_torchdata_resumes_again_and_again(written, workers, every):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed").StatefulDataLoader
    whole = expected_stream(written[0], 26)
    seen, state = [], None
    for batches in (1, 4, 7, 2, 5):
        stream = TokenStream(written[0], 8, seed=5)
        loader = stateful(stream, batch_size=None, num_workers=workers, snapshot_every_n_steps=every)
        if state is not None:
            loader.load_state_dict(state)
        seen.append(take(loader, batches))
        state = loader.state_dict()
    assert np.array_equal(np.concatenate(seen), whole[:19])
    # And then without it, with two ranks.
    parts = []
    for rank in range(2):
        stream = TokenStream(written[0], 4, 5, rank, 2)
        stream.load_state_dict(TokenStream.state_of(state))
        parts.append(take(DataLoader(stream, batch_size=None, num_workers=2), 7))
    assert np.array_equal(np.concatenate(parts, axis=1), whole[19:])


def test_ranks_of_a_process_group(written):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        stream = TokenStream(written[0], 8, seed=5)
        assert np.array_equal(take(stream, 3), expected_stream(written[0], 3))
    finally:
        torch.distributed.destroy_process_group()


def test_a_writer_takes_tensors(tmp_path):
    tokens = torch.arange(2 * 3 * 16).reshape(2, 3, 4, 4)
    with tokengrid.CacheWriter(tmp_path / "cache", grid=(4, 4), bits=7, images=2, views=3) as writer:
        writer.push_batch(tokens, keys=["a", "b"], labels=torch.tensor([1, 2]))
    cache = tokengrid.TokenCache(tmp_path / "cache")
    assert np.array_equal(cache[:], tokens.reshape(6, 16)) and cache.labels.tolist() == [1, 1, 1, 2, 2, 2]


def test_a_cache_travels_to_workers_as_a_path(tmp_path):
    make_cache(tmp_path / "cache", images=400, grid=(16, 16))
    import pickle

    assert len(pickle.dumps(TokenDataset(tmp_path / "cache"))) < 1000
    assert len(pickle.dumps(TokenStream(tmp_path / "cache"))) < 1500
