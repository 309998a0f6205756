"""Stores weights in 8 bits, the format of the program's built-in weights.

    python3 scripts/tiny/pack_weights.py IN.safetensors OUT.safetensors.gz [CLASS_NAME ...]

Every tensor of two and more axes becomes integers of 8 bits and `NAME.scale`, one factor in half precision for each index
of its first axis, chosen for the least squared error; the others become half precision. Metadata stays; the names of
classes are added to it. The file is compressed with gzip. Needs numpy and safetensors.
"""

import gzip
import json
import struct
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

# Candidates for the scale of a row: fractions of its largest magnitude that map to the largest 8-bit integer.
CLIPS = np.linspace(0.5, 1.0, 26)


def eight_bits(values):
    """Integers and factors of `values`, [rows, n]."""
    most = np.abs(values).max(axis=1, keepdims=True)
    best, integers, factors = np.full((len(values), 1), np.inf), None, None
    for clip in CLIPS:
        factor = np.maximum(most * clip / 127, 2**-14).astype(np.float16)
        wide = factor.astype(np.float32)
        tried = np.clip(np.rint(values / wide), -127, 127)
        error = ((tried * wide - values) ** 2).sum(axis=1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        integers = tried if integers is None else np.where(better, tried, integers)
        factors = factor if factors is None else np.where(better, factor, factors)
    return integers.astype(np.int8), factors[:, 0]


def main():
    source, target, *classes = sys.argv[1:]
    packed = {}
    with safe_open(source, "np") as file:
        metadata = file.metadata() or {}
        if classes:
            metadata["tokengrid.classes"] = json.dumps(classes)
        for name in file.keys():
            values = file.get_tensor(name).astype(np.float32)
            if values.ndim < 2:
                packed[name] = values.astype(np.float16)
                continue
            integers, packed[f"{name}.scale"] = eight_bits(values.reshape(len(values), -1))
            packed[name] = integers.reshape(values.shape)
    with open(target, "wb") as out:
        out.write(gzip.compress(sorted_metadata(save(packed), metadata), mtime=0))


def sorted_metadata(file, metadata):
    """Puts metadata into the header, sorted: equal weights make equal files."""
    length = struct.unpack("<Q", file[:8])[0]
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(file[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + file[8 + length :]


if __name__ == "__main__":
    main()
