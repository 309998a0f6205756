"""What can go wrong. The texts are those of the command: what, where, what was expected, what to do."""


class CacheError(Exception):
    """A cache, or what was asked of it, is not as it should be. All other exceptions of this package are subclasses."""


class NotACacheError(CacheError, FileNotFoundError):
    """The folder or URL has no ``manifest.json``."""


class UnfinishedCacheError(CacheError):
    """The folder holds a job that has not been finished: run it again."""


class NewerVersionError(CacheError):
    """The cache was written in a format that this version does not know."""


class DamagedCacheError(CacheError):
    """A file is missing, or is not what was written: the text names the shard and the row group."""


class CacheMismatchError(CacheError):
    """The cache is another one than was expected: other tokenizer, grid, recipe, content."""


class CacheInUseError(CacheError):
    """Another process is writing this rank's part of the cache."""


class CacheIOError(CacheError, OSError):
    """The file system or the object store refused: no space, no permission, no connection."""


class CacheValueError(CacheError, ValueError):
    """An argument is out of range; the text names it."""


class RowIndexError(CacheError, IndexError):
    """There is no such row."""


for _error in list(vars().values()):
    if isinstance(_error, type) and issubclass(_error, CacheError):
        _error.__module__ = "tokengrid"
del _error
