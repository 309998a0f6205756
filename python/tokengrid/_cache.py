"""Reading a finished cache."""

from __future__ import annotations

import json
import operator
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from . import _html, _tokengrid
from ._errors import CacheMismatchError, CacheValueError, RowIndexError
from ._whole import whole

__all__ = ["Keys", "Problem", "Row", "TokenCache", "VerifyReport", "stage_in"]

#: Rows whose keys are decoded at a time by an iteration over all of them.
_KEYS_AT_A_TIME = 16_384
#: Rows that are unpacked at a time by an iteration over all of them.
_ROWS_AT_A_TIME = 256

#: What opened maps are shared by, so that a cache that is unpickled where it is open already is not opened twice.
_open: weakref.WeakValueDictionary[tuple[str, str, bool], _Shared] = weakref.WeakValueDictionary()


class _Shared:
    """An open cache. The compiled class itself cannot be referred to weakly."""

    def __init__(self, path: str, in_memory: bool) -> None:
        self.core = _tokengrid.Cache(path, in_memory)


class Row(NamedTuple):
    """One row: one view of one image."""

    tokens: npt.NDArray[np.int64]  #: ``[H, W]``, raster order
    label: int  #: class index, -1 when unknown
    key: str  #: the source's own name of the image
    view: int  #: which view of the image, from 0
    crop_x: int  #: left edge of the crop in the resized image, in pixels
    crop_y: int  #: top edge
    flip: bool  #: whether the crop was mirrored


class Problem(NamedTuple):
    """One thing that is wrong with a cache."""

    file: str  #: a shard, the manifest or the quarantine list
    row_group: int | None  #: of the shard, where it is known
    what: str  #: what is wrong with it


@dataclass(frozen=True)
class VerifyReport:
    """What :meth:`TokenCache.verify` found. True where nothing is wrong."""

    problems: list[Problem]  #: empty for a good cache
    rows: int
    shards: int
    bytes: int  #: that were read and compared

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok


class Keys(Sequence[str]):
    """The keys of all rows, decoded when they are asked for. ``keys[i]`` is a text, ``keys[a:b]`` a list of them."""

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache

    def __len__(self) -> int:
        return len(self._cache)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if not isinstance(index, slice):
            return self._cache.row(index).key
        rows = range(len(self))[index]
        if not rows:
            return []
        # One pass over what lies between, whatever the step.
        first, last = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        metas = self._cache._core.metas(first, last + 1)
        return [metas[row - first][0] for row in rows]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _KEYS_AT_A_TIME):
            yield from self[start : start + _KEYS_AT_A_TIME]

    def __repr__(self) -> str:
        return f"<keys of {len(self)} rows>"


class TokenCache:
    """A finished cache, open for reading: an array ``[rows, H * W]`` of tokens with labels and keys.

    Rows are in the order of the source's images; the views of an image follow each other.

    ``path`` is a folder, or a URL (``s3://``, ``gs://``, ``az://``, ``https://``) whose shards are first copied to a local
    folder (:func:`stage_in`). ``in_memory=True`` reads all files into memory instead of mapping them: for files that another
    program may truncate while they are read. ``tokenizer`` (weights, or ``tiny``) is what :meth:`show` decodes pictures with.

    Everything but the tokens is checked when a cache is opened: sizes, footers, labels. :meth:`verify` checks the rest.

    A cache is safe to use in several threads, and releases the interpreter's lock while it works. It may be sent to other
    processes, forked or spawned: a pickle holds path and content hash, and the receiver maps the same files, of which the
    system keeps one copy in memory. If the path then holds another cache, :class:`CacheMismatchError` is raised.

    >>> with tokengrid.TokenCache("cache") as cache:    # doctest: +SKIP
    ...     tokens = cache.batch([5, 3, 1])              # int64 [3, H * W]
    ...     labels = cache.labels[[5, 3, 1]]             # int32 [3]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        in_memory: bool = False,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> None:
        text = os.fspath(path)
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        # A worker process may have another working directory.
        self._path = text if "://" in text else os.path.abspath(text)
        self._in_memory, self._tokenizer = in_memory, tokenizer
        self._adopt(_Shared(self._path, in_memory))

    def _adopt(self, shared: _Shared) -> None:
        self._shared: _Shared | None = shared
        core = shared.core
        self._num_rows, self._num_tokens = core.num_rows, core.grid[0] * core.grid[1]
        self._labels: npt.NDArray[np.int32] | None = None
        self._info: dict[str, Any] | None = None
        self._shown: _html.Shown | None = None
        _open.setdefault((self._path, core.content_hash, self._in_memory), shared)

    @property
    def _core(self) -> _tokengrid.Cache:
        if self._shared is None:
            raise CacheValueError(f"{self._path} is closed: open it again")
        return self._shared.core

    # ---- what it is ------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The folder or URL that was opened; a folder's absolute path."""
        return self._path

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a grid, in tokens."""
        return self._core.grid

    @property
    def bits(self) -> int:
        """Bits of a token: tokens are below ``2 ** bits``."""
        return self._core.bits

    @property
    def num_tokens(self) -> int:
        """Tokens of a row: ``H * W``."""
        return self._num_tokens

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, H * W)``."""
        return (self._num_rows, self._num_tokens)

    @property
    def num_images(self) -> int:
        """Images that have rows."""
        return self._core.num_images

    @property
    def num_views(self) -> int:
        """Rows of each image."""
        return self._core.num_views

    @property
    def content_hash(self) -> str:
        """A hash over all rows, whatever their order and files: 64 hex digits."""
        return self._core.content_hash

    @property
    def classes(self) -> list[str]:
        """Class names (for ImageNet: wnids) by index; empty where the source had none."""
        return self._core.classes

    @property
    def splits(self) -> dict[str, range]:
        """Rows of each named part (``train``, ``val``), in order; empty for a cache that is one whole."""
        views = self.num_views
        return {name: range(start * views, stop * views) for name, start, stop in self._core.splits}

    @property
    def info(self) -> dict[str, Any]:
        """What ``tokengrid cache info --json`` prints: format version, sizes, tokenizer, recipe, source, shards."""
        if self._info is None:
            info = json.loads(self._core.info())
            self._check_same(info)
            self._info = info
        return self._info

    def _check_same(self, info: dict[str, Any]) -> None:
        """What is read later than the maps may be of another cache, which was written to the same path."""
        if info["content_hash"] != self.content_hash:
            raise CacheMismatchError(
                f"{self._path} holds another cache than when it was opened: content_hash is {info['content_hash']}, "
                f"expected {self.content_hash}; open it again"
            )

    # ---- columns ---------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class index of each row, -1 when unknown: ``int32 [rows]``, read-only."""
        if self._labels is None:
            labels = np.repeat(self._core.image_labels(), self.num_views)
            labels.flags.writeable = False
            self._labels = labels
        return self._labels

    @property
    def views(self) -> npt.NDArray[np.int32]:
        """View of each row: ``int32 [rows]``."""
        first, views = self._core.first_view, self.num_views
        return np.tile(np.arange(first, first + views, dtype=np.int32), self.num_images)

    @property
    def keys(self) -> Keys:
        """The source's own name of each row's image, as a sequence of texts that are decoded on demand."""
        return Keys(self)

    # ---- rows ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: Any) -> npt.NDArray[np.int64]:
        """``cache[i]`` is ``int64 [H * W]``; ``cache[a:b]``, ``cache[[3, 1]]`` and ``cache[mask]`` are ``int64 [n, H * W]``."""
        if isinstance(index, slice):
            return self.batch(np.arange(*index.indices(self._num_rows), dtype=np.int64))
        if isinstance(index, tuple):
            raise TypeError("a cache is indexed by rows: cache[row][token], or cache[[3, 1]] for several rows")
        if isinstance(index, (list, range, np.ndarray)) and np.ndim(index) > 0:
            return self.batch(index)
        return self.batch([self._row_number(index)])[0]

    def __contains__(self, item: object) -> bool:
        # Without it, Python would compare `item` with the tokens of every row.
        raise TypeError(
            "what `in` asks of a cache is not clear: `key in cache.keys` is for names (cache.find(key) for parts of them), "
            "`0 <= row < len(cache)` for rows, `(cache[rows] == token).any()` for tokens"
        )

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        for start in range(0, self._num_rows, _ROWS_AT_A_TIME):
            yield from self[start : start + _ROWS_AT_A_TIME]

    def _row_number(self, index: Any) -> int:
        number = operator.index(index)
        row = number + self._num_rows if number < 0 else number
        if not 0 <= row < self._num_rows:
            raise RowIndexError(f"row {number} does not exist: the cache has {self._num_rows} rows, counted from 0")
        return row

    def row(self, index: int) -> Row:
        """All there is of a row. Decodes the row's part of the Parquet columns: for looking, not for training."""
        index = self._row_number(index)
        key, label, view, crop_x, crop_y, flip = self._core.metas(index, index + 1)[0]
        return Row(self[index].reshape(self.grid), label, key, view, crop_x, crop_y, flip)

    def batch(
        self, indices: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """The tokens of rows, ``[n, H * W]``, in the order of ``indices``.

        ``indices`` are row numbers (negative ones count from the end; any one may occur twice) or a mask ``bool [rows]``.
        ``dtype`` is ``int64`` (the default), ``int32``, ``uint32``, or up to 16 bits ``uint16``. ``out`` is written to and
        returned: a C-contiguous array of one of these types, ``[n, H * W]`` or ``[n, H, W]``.
        """
        rows = self._indices(indices)
        if out is None:
            out = np.empty((len(rows), self._num_tokens), np.int64 if dtype is None else dtype)
        elif dtype is not None and out.dtype != dtype:
            raise CacheValueError(f"out is {out.dtype}, but dtype is {np.dtype(dtype)}")
        self._read(rows, self._flat(out, len(rows)))
        return out

    def factorized(
        self, indices: npt.ArrayLike, low_bits: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens of rows in two parts, each ``int64 [n, H * W]``: the ``low_bits`` lowest bits, and the others."""
        rows = self._indices(indices)
        low, high = (np.empty((len(rows), self._num_tokens), np.int64) for _ in range(2))
        self._core.read_factorized(rows, whole("low_bits", low_bits, 0, self.bits), low, high)
        return low, high

    def packed(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """The packed grids of consecutive rows, ``uint8 [n, bytes per row]``, read-only.

        Where the rows lie in one row group the array *is* the mapped file and nothing is copied. Token i of a row is bits
        ``[i * bits, (i + 1) * bits)``, least significant first; at 8 or 16 bits ``.view("<u1")``, ``.view("<u2")`` are tokens.
        """
        rows = range(self._num_rows)[start:stop]
        runs, row = [], rows.start
        while row < rows.stop:
            runs.append(self._core.packed_run(row, rows.stop))
            row += len(runs[-1])
        if len(runs) == 1:
            return runs[0]
        return np.concatenate(runs) if runs else np.empty((0, self._core.row_bytes), np.uint8)

    def _indices(self, indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
        array = np.asarray(indices)
        if array.ndim != 1:
            raise CacheValueError(f"indices has shape {array.shape}, expected one dimension")
        if array.dtype == np.bool_:
            if len(array) != self._num_rows:
                raise RowIndexError(f"the mask has {len(array)} entries, expected one for each of {self._num_rows} rows")
            array = np.flatnonzero(array)
        elif array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"indices are {array.dtype}, expected whole numbers")
        return np.ascontiguousarray(array, np.int64)

    def _flat(self, out: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """``out`` as ``[n, H * W]``, the same memory."""
        shapes = ((count, self._num_tokens), (count, *self.grid))
        if out.shape not in shapes:
            raise CacheValueError(f"out has shape {out.shape}, expected {shapes[0]} or {shapes[1]}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise CacheValueError("out must be C-contiguous and writeable")
        return out.reshape(shapes[0])

    def _read(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        if out.dtype == np.int64:
            self._core.read_i64(rows, out)
        elif out.dtype == np.uint32 or out.dtype == np.int32:
            self._core.read_u32(rows, out.view(np.uint32))
        elif out.dtype == np.uint16 and self.bits <= 16:
            self._core.read_u16(rows, out)
        else:
            small = ", uint16" if self.bits <= 16 else ""
            raise CacheValueError(f"tokens of {self.bits} bits are int64, int32, uint32{small}; not {out.dtype}")

    # ---- questions -------------------------------------------------------------------------------------------------

    def find(
        self, key: str | None = None, *, label: int | None = None, view: int | None = None, shard: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The rows that have all of what is given, in order: ``int64 [n]``.

        ``key`` is a part of the image's name; ``label`` a class index, -1 for rows without a class; ``shard`` counts the shards
        in ``info["shards"]``.
        """
        return self._core.find(key, label, view, shard)

    def verify(self) -> VerifyReport:
        """Reads every byte, on all cores, and compares every checksum and count. Ctrl-C ends it."""
        problems, rows, shards, size = self._core.verify()
        if not problems:
            self._check_same(json.loads(self._core.info()))
        return VerifyReport([Problem(*problem) for problem in problems], rows, shards, size)

    # ---- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the files; arrays of :meth:`packed` keep theirs. Reading a closed cache is an error."""
        self._shared = None

    def __enter__(self) -> TokenCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return _reopen, (self._path, self.content_hash, self._in_memory, self._tokenizer)

    def __repr__(self) -> str:
        if self._shared is None:
            return f"TokenCache({self._path!r}, closed)"
        height, width = self.grid
        views = f" ({self.num_images} images x {self.num_views} views)" if self.num_views > 1 else ""
        return f"TokenCache({self._path!r}: {self._num_rows} rows{views} of {height}x{width} tokens, {self.bits} bits)"

    def show(self, rows: npt.ArrayLike | None = None, *, tokenizer: str | os.PathLike[str] | None = None) -> _html.Shown:
        """Rows as a table for a notebook; with a tokenizer (weights, or ``tiny``) each with its decoded picture.

        ``rows``: as for :meth:`batch`; the first five unless given. ``tokenizer``: that of the constructor unless given. Pictures are
        decoded by the program ``tokengrid`` with the package ``tokengrid-torch``; without it the table says how to get them.
        """
        shown = _html.first_rows(self) if rows is None else [self._row_number(row) for row in self._indices(rows)]
        return _html.Shown(self, shown, self._tokenizer if tokenizer is None else tokenizer)

    def _repr_html_(self) -> str:
        if self._shared is None:
            return _html.text(repr(self))
        if self._shown is None:
            # Kept, since decoding takes a while, and a notebook asks each time.
            self._shown = self.show()
        return _html.cache(self) + self._shown._repr_html_()


def _reopen(
    path: str, content_hash: str, in_memory: bool, tokenizer: str | os.PathLike[str] | None = None
) -> TokenCache:
    """What a pickle does where it arrives."""
    shared = _open.get((path, content_hash, in_memory))
    if shared is None:
        cache = TokenCache(path, in_memory=in_memory, tokenizer=tokenizer)
        if cache.content_hash != content_hash:
            raise CacheMismatchError(
                f"{path} holds another cache than when it was pickled: content_hash is {cache.content_hash}, "
                f"expected {content_hash}"
            )
        return cache
    cache = TokenCache.__new__(TokenCache)
    cache._path, cache._in_memory, cache._tokenizer = path, in_memory, tokenizer
    cache._adopt(shared)
    return cache


def stage_in(folder: str | os.PathLike[str] | None = None, limit_bytes: int | None = None) -> None:
    """Says where caches of URLs are kept as files, and how many bytes they may take there.

    Without it: ``tokengrid/stage`` below the user's cache folder, and nine tenths of what is free there.
    """
    _tokengrid.stage_in(folder, limit_bytes)
