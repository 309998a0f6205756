"""Random image files and Pillow's result for each, written to stdout one after the other.

    python scripts/pillow/cases.py --seed 1 --count 2000 [--damage] [--kind png]

A case is three blocks, each behind its length (4 bytes, little-endian): a JSON object, the file, and the pixels of the
centre crop (empty if Pillow rejects the file). The object has `name`, `ok`, `width`, `height`, `crc` (CRC-32 of the whole
picture in RGB), `orientation`, `size` (of the crop) and `adm` (CRC-32 of ADM's centre crop of that size). Case i depends on the seed and i only. Needs Pillow 13 or newer.
"""

import argparse
import json
import random
import struct
import sys
import zlib

import damage
import pictures
import reference

# Largest resized picture, in pixels: a line of 1 x 900 resized to 256 would be 59 million.
MAX_RESIZED = 1_500_000


def crop_size(rng, width, height):
    size = rng.choice([rng.randint(1, 300), rng.randint(1, 64), 128, 224, 256])
    ratio = max(width, height) / min(width, height)
    return max(1, min(size, int((MAX_RESIZED / ratio) ** 0.5)))


def case(seed, number, damaged, kind):
    rng = random.Random(f"{seed}/{number}")
    if damaged:
        kind, data = pictures.image_file(rng, (rng.randint(1, 48), rng.randint(1, 48)), kind)
        how, data = damage.damaged(rng, data)
        name = f"{number} {kind} {how}"
    else:
        kind, data = pictures.image_file(rng, kind=kind)
        name = f"{number} {kind}"
    image = reference.decode(data)
    if image is None:
        return {"name": name, "ok": False}, data, b""
    size = crop_size(rng, *image.size)
    about = {"name": name, "ok": True, "width": image.width, "height": image.height, "size": size,
             "crc": zlib.crc32(image.tobytes()), "orientation": reference.orientation(data),
             "adm": zlib.crc32(reference.adm_center_crop(image, size).tobytes())}
    return about, data, reference.center_crop(image, size).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--damage", action="store_true")
    parser.add_argument("--kind", choices=list(pictures.KINDS))
    options = parser.parse_args()
    for number in range(options.first, options.first + options.count):
        about, *blocks = case(options.seed, number, options.damage, options.kind)
        for block in (json.dumps(about).encode(), *blocks):
            sys.stdout.buffer.write(struct.pack("<L", len(block)) + block)


if __name__ == "__main__":
    main()
