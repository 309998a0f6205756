"""Damages a file at random: a description of the damage, and the damaged bytes."""

import struct
import zlib


def flip(rng, data, limit):
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(limit)] ^= 1 << rng.randrange(8)


def overwrite(rng, data, limit):
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(limit)] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)])


def remove(rng, data, limit):
    at = rng.randrange(limit)
    del data[at:at + rng.choice([1, 1, 2, 4, rng.randint(1, 40)])]


def insert(rng, data, limit):
    at = rng.randrange(limit)
    data[at:at] = rng.randbytes(rng.choice([1, 1, 2, 4, rng.randint(1, 40)]))


def repeat(rng, data, limit):
    at, length = rng.randrange(limit), rng.randint(1, 60)
    data[at:at] = data[at:at + length]


def cut(rng, data, limit):
    del data[rng.randrange(len(data) + 1):]


def cut_end(rng, data, limit):
    del data[max(0, len(data) - rng.randint(1, 30)):]


def with_right_checksums(data):
    """A PNG file whose chunks have the right checksums, so that readers continue; as far as its lengths are valid."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">L", data, at)[0]
        if end + 4 > len(data):
            break
        out += data[at:end] + struct.pack(">L", zlib.crc32(data[at + 4:end]))
        at = end + 4
    return bytes(out + data[at:])


KINDS = [flip, flip, flip, overwrite, overwrite, remove, insert, repeat, cut, cut_end]


def damaged(rng, data):
    """Returns (description of the damage, bytes)."""
    data = bytearray(data)
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not data:
            break
        kind = rng.choice(KINDS)
        # Half of the damage is in the headers.
        kind(rng, data, min(len(data), rng.choice([len(data), 64, 200])))
        names.append(kind.__name__)
    data = bytes(data)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        names.append("right_checksums")
        data = with_right_checksums(data)
    return "+".join(names), data
