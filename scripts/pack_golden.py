#!/usr/bin/env python3
"""Packs a golden file for tests/fixtures/golden: FILE.gz, and FILE.packed.json, which records all steps besides the compression.

In a .safetensors file bytes of pictures (tensors of type U8) become differences from what the three neighbours foretell, and floats
are laid out by byte place (all first bytes, all second bytes, ...), where that is smaller.

    python3 scripts/pack_golden.py FILE OUT [PREFIX=SALT ...]

PREFIX=SALT: tensors of the state_dict whose name begins with PREFIX have the weights of the formula with SALT and the rest of
their name. Their bytes are left out, and tests/support/build.rs puts them back. A name of an EMA copy, which has no dots, is that
of the tensor it is a copy of. The longest prefix counts. Every tensor that does not equal the formula stays as it is.

    python3 scripts/pack_golden.py tok_f4.ckpt tests/fixtures/golden =v1:tok_f4: model_ema.=v1:tok_f4:ema:
    python3 scripts/pack_golden.py ar.ckpt tests/fixtures/golden transformer.=v1:ar: first_stage_model.=v1:ar:fs:
"""

import array
import collections
import gzip
import io
import json
import pickle
import struct
import sys
import zipfile
import zlib
from math import prod
from pathlib import Path

Tensor = collections.namedtuple("Tensor", "kind key count offset shape")
MASK = (1 << 64) - 1


def stream(name, count):
    """tokengrid_test_support::stream."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    for i in range(1, count + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield 2 * (((z ^ (z >> 31)) >> 40) / 2**24) - 1


def formula(name, shape):
    """tokengrid_test_support::formula with gain 3, as bytes."""
    values = stream(name, prod(shape))
    if len(shape) >= 2:
        scale = (3 / prod(shape[1:])) ** 0.5
        return array.array("f", (v * scale for v in values)).tobytes()
    middle = 1 if name.endswith(("weight", "running_var")) else 0
    return array.array("f", (middle + 0.1 * v for v in values)).tobytes()


class Skeleton(pickle.Unpickler):
    """Reads the pickle of a checkpoint; classes are placeholders, and no code of the pickle is called."""

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, shape, *_: Tensor(*storage, offset, tuple(shape))
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if name == "OrderedDict":
            return collections.OrderedDict
        return type(name, (), {"__init__": lambda self, *_: None, "__setstate__": lambda self, _: None})

    def persistent_load(self, id):
        return id[1].__name__, id[2], id[4]


def members(path):
    """The state_dict, and the offset of each storage's bytes."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        starts = {}
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            starts[info.filename] = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        state = Skeleton(io.BytesIO(archive.read(name))).load()["state_dict"]
    folder = name.removesuffix("data.pkl") + "data/"
    return state, {name.removeprefix(folder): start for name, start in starts.items()}


def strip(path, salts):
    """The bytes without weights of the formula, and the table of these: offset, name, shape."""
    whole = path.read_bytes()
    state, starts = members(path)
    dotted = {name.replace(".", ""): name for name in state}
    bytes, table = bytearray(whole), []
    for name, tensor in state.items():
        prefix = max((prefix for prefix in salts if name.startswith(prefix)), key=len, default=None)
        if prefix is None or not isinstance(tensor, Tensor) or tensor.kind != "FloatStorage":
            continue
        rest = name.removeprefix(prefix)
        salted = salts[prefix] + dotted.get(rest, rest)
        start, length = starts[tensor.key] + 4 * tensor.offset, 4 * prod(tensor.shape)
        if whole[start : start + length] == formula(salted, tensor.shape):
            bytes[start : start + length] = bytearray(length)
            table.append([start, salted, list(tensor.shape)])
    return bytes, table


def packed_size(bytes):
    return len(zlib.compress(bytes, 9))


def residuals(part, width):
    """Bytes of rows of `width` as differences from left + above - above left, which are small for smooth pictures."""
    out = bytearray(part)
    for i in range(len(part)):
        left, above, both = i % width > 0, i >= width, i % width > 0 and i >= width
        foretold = (part[i - 1] if left else 0) + (part[i - width] if above else 0) - (part[i - width - 1] if both else 0)
        out[i] = (part[i] - min(max(foretold, 0), 255)) & 255
    return out


def rearranged(path):
    """The file in a form that compresses better: pictures as differences, numbers split by byte position."""
    bytes, differences, planes = bytearray(path.read_bytes()), [], []
    (header,) = struct.unpack("<Q", bytes[:8])
    for tensor in json.loads(bytes[8 : 8 + header]).values():
        width = {"U8": 1, "F32": 4, "F64": 8}.get(tensor.get("dtype"))
        if width is None:
            continue
        start, end = (8 + header + offset for offset in tensor["data_offsets"])
        part = bytes[start:end]
        if width == 1:
            other = residuals(part, tensor["shape"][-1])
        else:
            other = bytearray().join(part[place::width] for place in range(width))
        if packed_size(other) < packed_size(part):
            bytes[start:end] = other
            if width == 1:
                differences.append([start, end - start, tensor["shape"][-1]])
            else:
                planes.append([start, end - start, width])
    return bytes, differences, planes


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path, out = Path(sys.argv[1]), Path(sys.argv[2])
    salts = dict(argument.split("=", 1) for argument in sys.argv[3:])
    bytes, tensors = strip(path, salts) if salts else (path.read_bytes(), [])
    differences = planes = []
    if path.suffix == ".safetensors":
        bytes, differences, planes = rearranged(path)
    table = {"crc32": zlib.crc32(path.read_bytes()), "differences": differences, "planes": planes, "tensors": tensors}
    table_file = out / f"{path.name}.packed.json"
    table_file.unlink(missing_ok=True)
    if tensors or differences or planes:
        table_file.write_text(json.dumps(table) + "\n")
    # Without the time, so that the same file is packed into the same bytes.
    (out / f"{path.name}.gz").write_bytes(gzip.compress(bytes, 9, mtime=0))


if __name__ == "__main__":
    main()
