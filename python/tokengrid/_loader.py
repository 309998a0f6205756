"""Shuffled batches of a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _tokengrid
from ._cache import TokenCache
from ._errors import CacheMismatchError, CacheValueError
from ._whole import LARGE, whole

__all__ = ["Batch", "Loader"]


class Batch(NamedTuple):
    """One batch of one process."""

    tokens: Any  #: ``[batch_size, H * W]``, raster order; int64 unless the loader has another ``dtype``
    labels: Any  #: ``int64 [batch_size]``: class indices, -1 when unknown
    rows: Any  #: ``int64 [batch_size]``: the row of the cache of each sample


class Loader:
    """An endless stream of batches in a true global shuffle, the same stream as ``tokengrid train ar`` takes.

    An epoch visits every *image* exactly once, in an order that ``seed`` and the epoch decide; which of its views is taken
    changes from epoch to epoch so that each is used once before any is used again. Global batch g is samples
    ``[g * B * W, (g + 1) * B * W)`` of the stream, for ``world_size`` W and ``batch_size`` B, and process r takes the r-th slice
    of B. So with the same ``B * W`` the global batches are the same for any number of processes. Nothing is padded, dropped or
    repeated: batches run on over the end of an epoch.

    ``rank`` and ``world_size``: those of the environment (RANK, WORLD_SIZE, as torchrun sets them) unless given.
    ``split``: the name of a part of the cache (``cache.splits``); an epoch is then a pass over its images.

    >>> for tokens, labels, rows in tokengrid.Loader(cache, batch_size=256, seed=1):    # doctest: +SKIP
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
        dtype: npt.DTypeLike = np.int64,
    ) -> None:
        self._cache = cache if isinstance(cache, TokenCache) else TokenCache(cache)
        self._split, self._dtype = split, np.dtype(dtype)
        # Larger ones are mistakes, which would take the machine's memory.
        self._batch_size = whole("loader setting batch_size", batch_size, 1, 2**24)
        self._rank, self._world_size = _place(rank, world_size)
        self._images = _images(self._cache, split)
        self._core = self._make(seed)

    def _make(self, seed: int) -> _tokengrid.Loader:
        seed = whole("loader setting seed", seed, 0, 2**64 - 1)
        place = (self._rank, self._world_size)
        return _tokengrid.Loader(self._cache._core, self._batch_size, seed, *place, self._images)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows, labels = self._core.next_batch()
        tokens = np.empty((len(rows), self._cache.num_tokens), self._dtype)
        self._cache._read(rows, tokens)
        return Batch(tokens, labels, rows)

    def next_rows(self) -> npt.NDArray[np.int64]:
        """Takes the next batch without reading it: the rows, ``int64 [batch_size]``."""
        return self._core.next_batch()[0]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the same in all processes that have taken the same number of batches."""
        return {
            "version": 1,
            "seed": self._core.seed,
            "position": self._core.position,
            "split": self._split,
            "content_hash": self._cache.content_hash,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where the state was taken, in constant time.

        The number of processes and the batch size may be others than then. Another cache or split raises
        :class:`CacheMismatchError`.
        """
        check_state(state, self._cache, self._split)
        self._core.restore(state["seed"], state["position"])

    def seek(self, position: int) -> None:
        """Goes to a position, counted in samples of the whole job, in constant time."""
        self._core.restore(self._core.seed, whole("position", position))

    @property
    def cache(self) -> TokenCache:
        """The cache."""
        return self._cache

    @property
    def batch_size(self) -> int:
        """Samples of a batch of this process."""
        return self._batch_size

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Processes that share the stream."""
        return self._world_size

    @property
    def global_batch_size(self) -> int:
        """Samples that all processes together take per batch."""
        return self._core.global_batch_size

    @property
    def position(self) -> int:
        """Samples that the whole job has consumed."""
        return self._core.position

    @property
    def epoch(self) -> int:
        """The epoch of the next sample, from 0: whole passes over the images."""
        return self._core.epoch

    @property
    def epoch_fraction(self) -> float:
        """Passes over the images, with the fraction of the running one."""
        return self._core.epoch_fraction

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch."""
        return self._images[1] - self._images[0]

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_core"}
        return state | {"at": (self._core.seed, self._core.position)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        seed, position = state.pop("at")
        vars(self).update(state)
        self._core = self._make(seed)
        self._core.restore(seed, position)

    def __repr__(self) -> str:
        place = f", rank {self._rank} of {self._world_size}" if self._world_size > 1 else ""
        return f"Loader({self._cache!r}, batch_size={self._batch_size}, seed={self._core.seed}{place}, position={self.position})"


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: given, or from the environment, or one process."""
    if rank is None and world_size is None:
        rank, world_size = (_variable(name) for name in ("RANK", "WORLD_SIZE"))
    if (rank is None) != (world_size is None) and world_size != 1:
        missing = "rank" if rank is None else "world_size"
        raise CacheValueError(f"loader setting {missing} is missing: rank and world_size are given together")
    world_size = whole("loader setting world_size", 1 if world_size is None else world_size, 1)
    return whole("loader setting rank", 0 if rank is None else rank), world_size


def _variable(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    raise CacheValueError(f"the environment's {name} is {text!r}, expected a whole number")


def _images(cache: TokenCache, split: str | None) -> tuple[int, int]:
    if split is None:
        return 0, cache.num_images
    for name, start, stop in cache._core.splits:
        if name == split:
            return start, stop
    names = ", ".join(cache.splits) or "none"
    raise CacheValueError(f"the cache {cache.path} has no split {split!r}: it has {names}")


def check_state(state: dict[str, Any], cache: TokenCache, split: str | None) -> None:
    """Whether a state of a stream is of this cache and split."""
    if not isinstance(state, dict) or state.get("version") != 1:
        found = f"of version {state.get('version')}" if isinstance(state, dict) else f"a {type(state).__name__}"
        raise CacheValueError(f"the loader's state is {found}, expected a dictionary of version 1")
    whole("the state's seed", state.get("seed"), 0, 2**64 - 1)
    whole("the state's position", state.get("position"), 0, LARGE)
    for field, actual in (("content_hash", cache.content_hash), ("split", split)):
        if state.get(field) != actual:
            raise CacheMismatchError(
                f"the loader's state is of another stream: {field} is {state.get(field)} there, {actual} here ({cache.path})"
            )
