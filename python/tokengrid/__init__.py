"""Caches of image token grids: read, load, write.

A cache holds, for millions of images, the grid of integers that an image tokenizer made of each, packed to as many bits as
they have (576 bytes for 16 x 16 tokens of 18 bits), in Parquet files that are mapped into memory.

==================================  ==============================================================================
to                                  see
==================================  ==============================================================================
read rows                           :class:`TokenCache`
take shuffled batches               :class:`Loader`; for PyTorch :mod:`tokengrid.torch`
write with any tokenizer            :class:`CacheWriter`
turn tokens into bits and back      :mod:`tokengrid.lfq`
know what went wrong                :class:`CacheError` and its subclasses
==================================  ==============================================================================

>>> import tokengrid
>>> cache = tokengrid.TokenCache("path/to/cache")           # doctest: +SKIP
>>> cache.batch([3, 1, 2]).shape                            # doctest: +SKIP
(3, 256)

PyTorch is imported by ``tokengrid.torch`` only. The command ``tokengrid`` comes with the package; ``python -m tokengrid`` is
the same.
"""

from . import lfq
from ._cache import Keys, Problem, Row, TokenCache, VerifyReport, stage_in
from ._errors import (
    CacheError,
    CacheInUseError,
    CacheIOError,
    CacheMismatchError,
    CacheValueError,
    DamagedCacheError,
    NewerVersionError,
    NotACacheError,
    RowIndexError,
    UnfinishedCacheError,
)
from ._loader import Batch, Loader
from ._tokengrid import FORMAT_VERSION, __version__
from ._writer import CacheWriter, Finished

__all__ = [
    "FORMAT_VERSION",
    "Batch",
    "CacheError",
    "CacheIOError",
    "CacheInUseError",
    "CacheMismatchError",
    "CacheValueError",
    "CacheWriter",
    "DamagedCacheError",
    "Finished",
    "Keys",
    "Loader",
    "NewerVersionError",
    "NotACacheError",
    "Problem",
    "Row",
    "RowIndexError",
    "TokenCache",
    "UnfinishedCacheError",
    "VerifyReport",
    "__version__",
    "lfq",
    "stage_in",
]
