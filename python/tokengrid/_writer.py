"""Writing a cache with any tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _tokengrid
from ._errors import CacheValueError
from ._whole import whole

__all__ = ["CacheWriter", "Finished"]


class Finished(NamedTuple):
    """What :meth:`CacheWriter.finish` did."""

    published: bool  #: if not, other ranks are still at work, and the last one publishes the cache
    rows: int  #: of the cache when it is published, else of this rank
    images: int  #: with rows, likewise
    quarantined: int  #: images without rows, likewise
    content_hash: str | None  #: of the published cache


class CacheWriter:
    """Writes a cache that survives being killed at any moment.

    Images are numbered ``0 .. images``. Those of this rank (:attr:`images`) are added in order, from :attr:`next_image` on:
    after a kill the same script goes on after what is durable, at most one row group (16,384 rows) is done twice, and the cache
    has the content hash of a job that was never killed.

    ============================  ================================================================================
    argument                      meaning
    ============================  ================================================================================
    ``path``                      folder of the cache, or a URL (``s3://``, ...); made if need be
    ``grid``                      ``(H, W)`` in tokens
    ``bits``                      1 to 24: tokens are below ``2 ** bits``
    ``images``                    inputs in all ranks together
    ``views``                     rows per image (ten crops: 10)
    ``tokenizer``                 who makes the tokens: a name, or a mapping with ``name``, ``fingerprint`` (a hash of
                                  the weights), ``variant``, ``precision``; other entries become its details
    ``recipe``                    how images become views: any JSON value
    ``source``                    where the images are, a text
    ``classes``                   class names by index; labels are then below their number
    ``splits``                    ``{name: images}`` in order: how many of the images belong to each part
    ``rank``, ``world_size``      this process and how many share the job
    ``overwrite``                 removes a cache, or an unfinished job, that is there
    ``single_writer``             says that nobody but this process writes to stores: for those without conditional writes
    ============================  ================================================================================

    A cache of another job in ``path`` (one of these differs) raises :class:`tokengrid.CacheMismatchError`, which names the
    field.

    >>> with tokengrid.CacheWriter("cache", grid=(16, 16), bits=14, images=len(files), tokenizer="LlamaGen VQ-16") as writer:
    ...     for i in range(writer.next_image, writer.images.stop):    # doctest: +SKIP
    ...         writer.push(encode(files[i]), key=files[i], label=labels[i])

    Leaving the ``with`` block publishes the cache; leaving it by an exception keeps what was added for the next run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        grid: tuple[int, int],
        bits: int,
        images: int,
        views: int = 1,
        tokenizer: str | Mapping[str, Any] = "",
        recipe: Any = None,
        source: str = "",
        classes: Sequence[str] = (),
        splits: Mapping[str, int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        overwrite: bool = False,
        single_writer: bool = False,
        rows_per_group: int = 16_384,
        groups_per_shard: int = 4,
    ) -> None:
        height, width = (whole("a side of the grid", side, 1, 65_535) for side in _pair(grid))
        self._grid, self._views = (height, width), whole("views", views, 1)
        job = {
            "grid": [height, width],
            "bits": whole("bits", bits, 1, 24),
            "images": whole("images", images),
            "views": self._views,
            "tokenizer": _tokenizer(tokenizer),
            "recipe": recipe,
            "source": ["python", source],
            "excluded": 0,
            "classes": _texts("classes", classes),
            "splits": _ranges(splits or {}),
            "rank": whole("rank", rank),
            "world_size": whole("world_size", world_size, 1),
            "rows_per_group": whole("rows_per_group", rows_per_group, 1),
            "groups_per_shard": whole("groups_per_shard", groups_per_shard, 1),
        }
        self._num_tokens = height * width
        self._core = _tokengrid.Writer(os.fspath(path), json.dumps(job), overwrite, single_writer)
        self._images = range(*self._core.images)
        self._next = self._core.durable
        self._finished: Finished | None = None

    @property
    def images(self) -> range:
        """The images of this rank."""
        return self._images

    @property
    def next_image(self) -> int:
        """The image that is added next. After opening: the first one that is not durable."""
        return self._next

    @property
    def is_complete(self) -> bool:
        """Whether the cache was finished before: there is nothing to do."""
        return self._finished is not None or self._core.is_complete

    @property
    def num_quarantined(self) -> int:
        """Images of this rank without rows."""
        return self._core.num_quarantined

    def push(
        self, tokens: Any, *, key: str, label: int = -1, crops: npt.ArrayLike | None = None
    ) -> None:
        """Adds the next image.

        ``tokens``: whole numbers of any type, a numpy array or a PyTorch tensor on any device, ``[H, W]`` or ``[H * W]``; for
        several views ``[views, ...]``. ``key``: the image's name, 1 to 4096 bytes. ``label``: class index, -1 when unknown.
        ``crops``: ``[views, 3]``, left edge, top edge, and 1 where the view is mirrored.
        """
        self.push_batch(_array(tokens, "tokens")[None], keys=[key], labels=[label], crops=crops)

    def push_batch(
        self, tokens: Any, *, keys: Iterable[str], labels: Any = None, crops: npt.ArrayLike | None = None
    ) -> None:
        """Adds the next ``n`` images: as :meth:`push`, with ``n`` in front of every shape. ``labels``: ``[n]``.

        If one of them is refused, those before it have been added, and :attr:`next_image` is the one that was refused.
        """
        keys = list(keys)
        array = _array(tokens, "tokens")
        rows = len(keys) * self._views
        left = self._images.stop - self._next
        if len(keys) > left:
            raise CacheValueError(f"{len(keys)} images were pushed, but only {left} of {len(self._images)} are left")
        self._check_shape(array, len(keys))
        labels = np.full(len(keys), -1) if labels is None else _array(labels, "labels")
        if labels.shape != (len(keys),):
            raise CacheValueError(f"labels have shape {list(labels.shape)}, expected [{len(keys)}]")
        crops = np.zeros((rows, 3), np.int32) if crops is None else self._crops(crops, len(keys))
        added, error = self._core.push(
            self._next,
            np.ascontiguousarray(array, np.int64).reshape(rows, self._num_tokens),
            np.ascontiguousarray(labels, np.int64).reshape(-1),
            keys,
            np.ascontiguousarray(crops),
        )
        self._next += added
        if error is not None:
            raise error

    def _check_shape(self, array: npt.NDArray[Any], images: int) -> None:
        views = [(images, self._views)] + ([(images,)] if self._views == 1 else [])
        grids = (self._grid, (self._num_tokens,))
        if not any(array.shape == (*outer, *grid) for outer in views for grid in grids):
            outer = f"{images}, " + (f"{self._views}, " if self._views > 1 else "")
            expected = f"[{outer}{self._grid[0]}, {self._grid[1]}] or [{outer}{self._num_tokens}]"
            raise CacheValueError(f"tokens have shape {list(array.shape)}, expected {expected}")

    def _crops(self, crops: npt.ArrayLike, images: int) -> npt.NDArray[np.int32]:
        array = _array(crops, "crops")
        if array.size != images * self._views * 3 or array.shape[-1] != 3:
            shape = f"[{images * self._views}, 3]: left edge, top edge, 0 or 1"
            raise CacheValueError(f"crops have shape {list(array.shape)}, expected {shape}")
        array = array.reshape(-1, 3)
        if array.size and (array.min() < 0 or array.max() > 2**31 - 1 or array[:, 2].max() > 1):
            raise CacheValueError("crops: left and top edges are 0 to 2147483647, and the third number is 0 or 1")
        return array.astype(np.int32)

    def quarantine(self, key: str, reason: str) -> None:
        """Records that the next image has no rows, and why."""
        self._core.quarantine(self._next, key, reason)
        self._next += 1

    def checkpoint(self) -> None:
        """Makes durable what was added so far."""
        self._core.checkpoint()

    def finish(self) -> Finished:
        """Publishes the cache, once all images were added by all ranks."""
        if self._finished is None:
            if self._next != self._images.stop and not self._core.is_complete:
                # Keeps the writer usable: more can still be added.
                missing = self._images.stop - self._next
                raise CacheValueError(f"{missing} images, from image {self._next} on, were not added")
            self._finished = Finished(*self._core.finish())
        return self._finished

    def close(self) -> None:
        """Unlocks the folder without publishing. What is durable stays for the next run."""
        self._core.close()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._finished is None:
            try:
                self._core.checkpoint()
            finally:
                self._core.close()

    def __repr__(self) -> str:
        return f"CacheWriter(next image {self._next} of {self._images.start}..{self._images.stop})"


def _array(values: Any, name: str) -> npt.NDArray[Any]:
    """Whole numbers as an array, from numpy or PyTorch."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise TypeError(f"{name} are masked in places: every place needs a number")
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} are {array.dtype}, expected whole numbers")
    return array


def _pair(grid: Any) -> tuple[Any, Any]:
    sides = tuple(grid) if isinstance(grid, (tuple, list, np.ndarray)) else ()
    if len(sides) != 2:
        raise CacheValueError(f"grid is {grid!r}, expected (H, W)")
    return sides[0], sides[1]


def _texts(name: str, values: Sequence[str]) -> list[str]:
    texts = list(values) if not isinstance(values, str) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} is {values!r}, expected a list of texts")
    return texts


def _tokenizer(tokenizer: str | Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"name": tokenizer} if isinstance(tokenizer, str) else dict(tokenizer)
    named = {field: str(given.pop(field, "")) for field in ("fingerprint", "name", "variant", "precision")}
    details = given.pop("details", {})
    return {**named, "details": {**details, **given}}


def _ranges(splits: Mapping[str, int]) -> list[tuple[str, int, int]]:
    ranges, start = [], 0
    for name, images in splits.items():
        images = whole(f"split {name}", images)
        ranges.append((name, start, start + images))
        start += images
    return ranges
