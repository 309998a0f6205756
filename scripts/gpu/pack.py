#!/usr/bin/env python3
"""Packs what scripts/gpu/check.py needs on a machine with a GPU and PyTorch 2.11, where there may be no network.

    python3 scripts/gpu/pack.py [--program target/release/tokengrid-torch] [--out target/tokengrid-gpu.tar.xz]

The program with libtorch, which runs every command, without its symbols; `data/photos`, scripts/gpu and scripts/peers. Never more
than 24 MiB. There:

    tar xf tokengrid-gpu.tar.xz && python3 tokengrid-gpu/scripts/gpu/check.py results
"""

import argparse
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKED_BYTES_MAX = 24 << 20
FOLDERS = ["data/photos", "scripts/gpu", "scripts/peers"]
# The program carries the photographs as well: with a dictionary of its size they count once.
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]


def stripped(program, folder):
    """A copy of the program without its symbols; as it is where `strip` is missing."""
    copy = Path(folder) / "tokengrid"
    shutil.copy2(program, copy)
    if shutil.which("strip"):
        subprocess.run(["strip", copy], check=True)
    return copy


def is_wanted(member):
    return None if "__pycache__" in member.name else member


def packed(program):
    """The archive's bytes."""
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(stripped(program, folder), "tokengrid-gpu/tokengrid")
        for name in FOLDERS:
            tar.add(ROOT / name, f"tokengrid-gpu/{name}", filter=is_wanted)
    return lzma.compress(archive.getvalue(), filters=FILTERS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/tokengrid-torch")
    parser.add_argument("--out", type=Path, default=ROOT / "target/tokengrid-gpu.tar.xz")
    args = parser.parse_args()
    data = packed(args.program)
    if len(data) > PACKED_BYTES_MAX:
        sys.exit(f"{len(data):,} bytes, more than {PACKED_BYTES_MAX:,}: leave something out of FOLDERS")
    args.out.write_bytes(data)
    print(f"{args.out}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
