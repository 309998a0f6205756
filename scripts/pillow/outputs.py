#!/usr/bin/env python3
"""Writes ingest/tests/fixtures/preprocess/outputs.txt: the reference's results for the pictures in `in`.

    python scripts/pillow/outputs.py [NAME.SIZE[.resized|.adm|.adm-F] ...]

Lines that are there are made again, and those that are named are added. A line has the output's name, its columns and rows, and
the CRC-32 of each eighth of its rows. `NAME.SIZE` is the centre crop, `NAME.SIZE.resized` all of the resized picture,
`NAME.SIZE.adm` ADM's centre crop, `NAME.SIZE.adm-1.1` the ten crops of ADM's square of 1.1 times the size. Needs Pillow 13.0 (libjpeg-turbo decides about pixels of damaged files).
"""

import sys
import zlib
from pathlib import Path

import reference
from PIL import Image

FOLDER = Path(__file__).parents[2] / "ingest/tests/fixtures/preprocess"
BANDS = 8


def output(name):
    rest, adm, factor = name.removesuffix(".resized").partition(".adm")
    file, _, size = rest.rpartition(".")
    image = reference.decode((FOLDER / "in" / file).read_bytes())
    if image is None:
        sys.exit(f"{file}: Pillow rejects it")
    if factor:
        return reference.adm_ten_crop(image, int(size), float(factor.removeprefix("-")))
    if adm:
        return reference.adm_center_crop(image, int(size))
    if name == rest:
        return reference.center_crop(image, int(size))
    return image.resize(reference.target_size(*image.size, int(size)), Image.Resampling.BILINEAR)


def line(name):
    image = output(name)
    pixels, (columns, rows) = image.tobytes(), image.size
    starts = [i * rows // BANDS * columns * 3 for i in range(BANDS + 1)]
    bands = [zlib.crc32(pixels[start:end]) for start, end in zip(starts, starts[1:])]
    return " ".join([name, str(columns), str(rows), *(f"{band:08x}" for band in bands)])


def main():
    table = FOLDER / "outputs.txt"
    names = {text.split()[0] for text in table.read_text().splitlines()} | set(sys.argv[1:])
    table.write_text("".join(f"{line(name)}\n" for name in sorted(names)))


if __name__ == "__main__":
    main()
