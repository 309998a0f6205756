"""Caches as PyTorch data sets.

:class:`TokenDataset` is map-style, for samplers and shuffles of PyTorch's own. :class:`TokenStream` is iterable: the global
shuffle of :class:`tokengrid.Loader`, exact across any number of ranks, workers and resumes.

Workers are rarely needed: one process unpacks some millions of grids per second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from ._cache import TokenCache
from ._errors import CacheValueError
from ._loader import Loader, check_state

__all__ = ["Sample", "TokenBatch", "TokenDataset", "TokenStream"]


class Sample(NamedTuple):
    """One sample of a :class:`TokenDataset`."""

    tokens: torch.Tensor  #: ``int64 [H * W]``, raster order
    label: torch.Tensor  #: ``int64 []``, -1 when unknown


class TokenBatch(NamedTuple):
    """A batch."""

    tokens: torch.Tensor  #: ``int64 [n, H * W]``, raster order
    labels: torch.Tensor  #: ``int64 [n]``, -1 when unknown


def _empty(rows: int, num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays for the tokens and labels of a batch."""
    return np.empty((rows, num_tokens), np.int64), np.empty(rows, np.int64)


def _tensors(batch: tuple[np.ndarray, np.ndarray]) -> TokenBatch:
    """The same memory as tensors."""
    return TokenBatch(torch.from_numpy(batch[0]), torch.from_numpy(batch[1]))


class _Samples(Sequence[Sample]):
    """The samples of a batch that was read as a whole. ``default_collate`` takes it as it is; to all others it is a list."""

    def __init__(self, batch: TokenBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.labels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Sample(self.batch.tokens[index], self.batch.labels[index])


def _collate(samples: Any, *, collate_fn_map: Any = None) -> TokenBatch:
    if isinstance(samples, _Samples):
        return samples.batch
    return TokenBatch(torch.stack([sample[0] for sample in samples]), torch.stack([sample[1] for sample in samples]))


def _refuse_batches(batches: Any, *, collate_fn_map: Any = None) -> Any:
    raise TypeError("a TokenStream yields whole batches, which are not to be put together again: DataLoader(stream, batch_size=None)")


# PyTorch's own way to say how a type is collated: DataLoader needs no `collate_fn`.
default_collate_fn_map[Sample] = _collate
default_collate_fn_map[TokenBatch] = _refuse_batches


class TokenDataset(Dataset[Sample]):
    """The rows of a cache as a map-style data set; with a ``DataLoader`` each batch is read at once (``__getitems__``).

    A sample is ``(tokens int64 [H * W], label int64 [])``, a batch ``(tokens int64 [n, H * W], labels int64 [n])``. ``split``
    names a part of the cache (``cache.splits``).

    >>> loader = DataLoader(TokenDataset("cache"), batch_size=256, shuffle=True)    # doctest: +SKIP
    >>> tokens, labels = next(iter(loader))                                        # doctest: +SKIP
    """

    def __init__(self, cache: TokenCache | str | os.PathLike[str], *, split: str | None = None) -> None:
        self.cache = cache if isinstance(cache, TokenCache) else TokenCache(cache)
        if split is not None and split not in self.cache.splits:
            names = ", ".join(self.cache.splits) or "none"
            raise CacheValueError(f"the cache {self.cache.path} has no split {split!r}: it has {names}")
        self._rows = range(len(self.cache)) if split is None else self.cache.splits[split]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Sample]:
        samples = indices if isinstance(indices, list) else np.asarray(indices).tolist()
        batch = _empty(len(samples), self.cache.num_tokens)
        self.cache._core.read_samples(samples, self._rows.start, len(self._rows), *batch)
        return _Samples(_tensors(batch))

    def __repr__(self) -> str:
        return f"TokenDataset({self.cache!r}, {len(self)} samples)"


class TokenStream(IterableDataset[TokenBatch]):
    """The endless stream of shuffled batches of :class:`tokengrid.Loader`, as tensors.

    It yields whole batches, so a ``DataLoader`` gets ``batch_size=None``. ``batch_size`` is per rank. Rank and world size are those
    of ``torch.distributed``, else of the environment (RANK, WORLD_SIZE), unless given; the stream divides itself among ranks and
    workers, so it is not to be wrapped in a distributed sampler or sharded again.

    With any number of workers the ``DataLoader`` yields the same batches in the same order. ``num_batches`` ends an iteration after
    that number; the next one goes on where it ended. (Workers that are started anew for each iteration know only what the main
    process knows: use ``persistent_workers=True``, or call :meth:`set_epoch` before each.)

    **Resume.** Without workers :meth:`state_dict` says where the stream stands. With workers, which run ahead, say how many
    batches the training has taken since the stream was made or restored: ``state_dict(num_taken)``. Or use torchdata's
    ``StatefulDataLoader``, which keeps the state of each worker and is resumed with as many workers. A state may be loaded with
    another number of ranks, workers, or batch size; that of a ``StatefulDataLoader`` becomes such a one by :meth:`state_of`.

    >>> stream = TokenStream("cache", batch_size=64, seed=1)                   # doctest: +SKIP
    >>> for tokens, labels in DataLoader(stream, batch_size=None):             # doctest: +SKIP
    ...     step(tokens, labels)
    """

    def __init__(
        self,
        cache: TokenCache | str | os.PathLike[str],
        batch_size: int = 256,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        split: str | None = None,
        num_batches: int | None = None,
    ) -> None:
        if rank is None and world_size is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if num_batches is not None and num_batches < 1:
            raise CacheValueError(f"num_batches is {num_batches}, expected at least 1")
        self._loader = Loader(cache, batch_size, seed, rank, world_size, split=split)
        self._split, self._num_batches = split, num_batches
        # Where in the job's stream the iteration begins, and how many of its batches are passed.
        self._start, self._passed, self._restored = 0, 0, 0
        # The batch that worker 0 begins with, where a state was loaded in a worker.
        self._first: int | None = None

    @property
    def cache(self) -> TokenCache:
        """The cache."""
        return self._loader.cache

    @property
    def position(self) -> int:
        """Samples of the whole job before the next batch of this process."""
        return self._start + self._passed * self._loader.global_batch_size

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an iteration, counted from 0; for a stream with ``num_batches``."""
        if self._num_batches is None:
            raise CacheValueError("set_epoch is for a stream with num_batches: others have no end")
        self._start = epoch * self._num_batches * self._loader.global_batch_size
        self._passed, self._restored, self._first = 0, 0, None

    def __iter__(self) -> Iterator[TokenBatch]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # A DataLoader takes one batch from each worker in turn and begins with worker 0.
        if self._first is None:
            self._first = self._passed
        number = self._passed + (self._first + worker_id - self._passed) % num_workers
        while self._num_batches is None or number < self._num_batches:
            batch = _empty(self._loader.batch_size, self.cache.num_tokens)
            self._loader._core.read_batch(self._start + number * self._loader.global_batch_size, *batch)
            # Before the batch is handed over: a state that is asked for then has it behind it.
            self._passed = number + 1
            if worker is None:
                self._first = None
            yield _tensors(batch)
            number += num_workers
        self._start += self._num_batches * self._loader.global_batch_size
        self._passed, self._first = 0, None

    def state_dict(self, num_taken: int | None = None) -> dict[str, Any]:
        """Where the stream stands. ``num_taken``: batches taken since it was made or restored, whichever process read them."""
        passed = self._passed if num_taken is None else self._restored + num_taken
        return self._loader.state_dict() | {
            "position": self._start + passed * self._loader.global_batch_size,
            "start": self._start,
            "passed": passed,
            "first": self._first,
            "global_batch_size": self._loader.global_batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where the state was taken. Another cache or split raises :class:`tokengrid.CacheMismatchError`."""
        check_state(state, self.cache, self._split)
        self._loader.load_state_dict(state)
        if state.get("global_batch_size") == self._loader.global_batch_size:
            self._start, self._passed = state["start"], state["passed"]
        else:
            # Batches of another size, or a state of a `Loader`: an iteration begins here.
            self._start, self._passed = state["position"], 0
        if self._num_batches is not None and self._passed >= self._num_batches and get_worker_info() is None:
            ended = self._passed // self._num_batches * self._num_batches
            self._start, self._passed = self._start + ended * self._loader.global_batch_size, self._passed - ended
        self._restored = self._passed
        # A worker goes on with its own share; for a stream whose workers are still to come the turns begin anew.
        self._first = state.get("first") if get_worker_info() is not None else None

    @staticmethod
    def state_of(loader_state: dict[str, Any]) -> dict[str, Any]:
        """The stream's state out of that of a ``StatefulDataLoader``, for another number of workers, ranks, or batch size."""
        snapshot = loader_state.get("_snapshot")
        if snapshot is None:
            # Without workers.
            state, since = loader_state["dataset_state"], 0
        else:
            workers = snapshot["_worker_snapshots"].values()
            # The worker whose batch was taken last is the furthest.
            state = max((worker["dataset_state"] for worker in workers), key=lambda state: state["passed"])
            since = loader_state["_steps_since_snapshot"]
        passed = state["passed"] + since
        return state | {"position": state["start"] + passed * state["global_batch_size"], "passed": passed, "first": None}

    def __repr__(self) -> str:
        return f"TokenStream({self._loader!r})"
