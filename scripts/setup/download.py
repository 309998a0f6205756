"""Fetches the wanted parts of a remote file, and continues where an interrupted run stopped.

A `RemoteFile` reads like a local file. What is read and not here yet is fetched by HTTP ranges into a sparse `.part`
file of full size; a small `.part.json` beside it lists the byte intervals that have arrived. A server that does not
know ranges is asked for the whole file instead. Nothing here decides whether the bytes are the right ones: see unpack.py.
"""

import errno
import http.client
import io
import json
import os
import time
import urllib.error

BLOCK_BYTES = 256 * 1024
CHUNK_BYTES = 1 << 20
SAVE_EVERY_BYTES = 16 << 20
RETRY_DELAYS_SECS = (1, 2, 4, 8, 16)
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
TRANSIENT_ERRORS = (OSError, http.client.HTTPException)  # URLError, timeouts and TLS errors are OSErrors
LOCAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class SourceFailed(Exception):
    """This address cannot give the file; another one might."""


class PartFile:
    """The bytes that have arrived so far, and which they are."""

    def __init__(self, path, size_bytes):
        self.path = path
        self.size_bytes = size_bytes
        self._journal = path + ".json"
        self._unsaved_bytes = 0
        self.intervals = self._load()
        self._file = open(path, "r+b" if os.path.exists(path) else "w+b")
        self._file.truncate(size_bytes)

    def _load(self):
        """Sorted, disjoint [start, end) pairs; none if there is no journal of this very file."""
        try:
            with open(self._journal, encoding="utf-8") as file:
                journal = json.load(file)
            if journal["size_bytes"] == self.size_bytes and os.path.getsize(self.path) == self.size_bytes:
                return [tuple(pair) for pair in journal["intervals"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return []

    def missing(self, start, end):
        gaps, position = [], start
        for have_start, have_end in self.intervals:
            if have_end <= position or have_start >= end:
                continue
            if have_start > position:
                gaps.append((position, have_start))
            position = have_end
        if position < end:
            gaps.append((position, end))
        return gaps

    def write(self, position, data):
        self._file.seek(position)
        self._file.write(data)
        self._add(position, position + len(data))
        self._unsaved_bytes += len(data)
        if self._unsaved_bytes >= SAVE_EVERY_BYTES:
            self.save()

    def _add(self, start, end):
        merged = []
        for have_start, have_end in self.intervals:
            if have_end < start or have_start > end:
                merged.append((have_start, have_end))
            else:
                start, end = min(start, have_start), max(end, have_end)
        self.intervals = sorted(merged + [(start, end)])

    def read(self, position, num_bytes):
        self._file.seek(position)
        return self._file.read(num_bytes)

    def save(self):
        """The data first, then the journal, so that the journal never claims bytes that are not there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        with open(self._journal + ".new", "w", encoding="utf-8") as file:
            json.dump({"size_bytes": self.size_bytes, "intervals": self.intervals}, file)
        os.replace(self._journal + ".new", self._journal)
        self._unsaved_bytes = 0

    def close(self):
        if not self._file.closed:
            self.save()
            self._file.close()

    def delete(self):
        self._file.close()
        for path in (self.path, self._journal):
            if os.path.exists(path):
                os.remove(path)


class RemoteFile(io.RawIOBase):
    """A seekable, read-only file at `url`. `session.open(url, headers)` does the HTTP."""

    def __init__(self, session, url, part):
        super().__init__()
        self.url = url
        self.progress = None
        self._session = session
        self._part = part
        self._position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._part.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer):
        start = self._position
        end = min(start + len(buffer), self._part.size_bytes)
        if start >= end:
            return 0
        # Whole blocks: a zip file's directory is read in many small steps.
        self.ensure(start // BLOCK_BYTES * BLOCK_BYTES, min(-(-end // BLOCK_BYTES) * BLOCK_BYTES, self._part.size_bytes))
        data = self._part.read(start, end - start)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def ensure(self, start, end):
        """Fetches what is missing of [start, end)."""
        failures = 0
        while True:
            gaps = self._part.missing(start, end)
            if not gaps:
                return
            arrived_before = self._part.intervals
            try:
                self._fetch(*gaps[0])
            except urllib.error.HTTPError as error:
                if error.code not in TRANSIENT_STATUS:
                    raise SourceFailed(f"{error.code} {error.reason}") from error
                failure = f"{error.code} {error.reason}"
            except TRANSIENT_ERRORS as error:
                if getattr(error, "errno", None) in LOCAL_ERRNOS:
                    raise
                failure = str(getattr(error, "reason", None) or error) or type(error).__name__
            else:
                failure = "the connection closed early"
            if self._part.intervals != arrived_before:
                failures = 0
            elif failures == len(RETRY_DELAYS_SECS):
                raise SourceFailed(failure)
            else:
                time.sleep(RETRY_DELAYS_SECS[failures])
                failures += 1

    def _fetch(self, start, end):
        """One request. Keeps whatever arrives, even when the connection breaks."""
        with self._session.open(self.url, {"Range": f"bytes={start}-{end - 1}"}) as response:
            start, end = self._answered_range(response, start, end)
            while start < end:
                data = response.read(min(CHUNK_BYTES, end - start))
                if not data:
                    return
                self._part.write(start, data)
                start += len(data)
                if self.progress:
                    self.progress.advance(len(data))

    def _answered_range(self, response, start, end):
        size = self._part.size_bytes
        if response.status == 206:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total not in ("", "*", str(size)):
                raise SourceFailed(f"the file there has {total} bytes, not {size}")
            return start, end
        length = response.headers.get("Content-Length")
        if length is not None and int(length) != size:
            raise SourceFailed(f"the file there has {length} bytes, not {size}")
        if self.progress:
            self.progress.total_bytes = size
        return 0, size
