#!/usr/bin/env python3
"""Files to 256 x 256 crops, on one thread: ours beside Pillow + torchvision, OpenCV, pyvips and torchvision.io.

    python3 scripts/peers/ingest.py SOURCE [--rounds 5] [--env DIR]

SOURCE is a folder of images. All contestants read the same files from memory (the page cache), decode them, resize the
shorter side to 256 and cut out the centre, to an array of bytes. The reference is Pillow + torchvision: `ingest` gives its
pixels to the bit, which is checked here; of the others it is told how far off they are.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Rounds, arguments, inside, per_cpu_second, record

SIZE = 256
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
PACKAGES = {
    "PIL": "pillow>=13",
    "numpy": "numpy",
    "torchvision": "torchvision==0.26.0 torch==2.11.0",
    "cv2": "opencv-python-headless",
    "pyvips": "pyvips[binary]",
}


def crop(width, height):
    """Offsets of the centre crop: torchvision's rounding."""
    return round((width - SIZE) / 2), round((height - SIZE) / 2)


def target(width, height):
    """Size with the shorter side SIZE: torchvision's rule."""
    if width <= height:
        return SIZE, int(SIZE * height / width)
    return int(SIZE * width / height), SIZE


def pillow_torchvision():
    import numpy
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, Resize

    transform = Compose([Resize(SIZE), CenterCrop(SIZE)])
    return lambda path: numpy.asarray(transform(Image.open(path).convert("RGB")))


def opencv():
    import cv2
    import numpy

    cv2.setNumThreads(1)

    def view(path):
        image = cv2.imdecode(numpy.fromfile(path, numpy.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        height, width = image.shape[:2]
        image = cv2.resize(image, target(width, height), interpolation=cv2.INTER_AREA)
        x, y = crop(image.shape[1], image.shape[0])
        return cv2.cvtColor(image[y : y + SIZE, x : x + SIZE], cv2.COLOR_BGR2RGB)

    return view


def vips():
    import pyvips

    pyvips.voperation.cache_set_max(0)

    def view(path):
        image = pyvips.Image.thumbnail(str(path), SIZE, height=SIZE, crop="centre", no_rotate=True)
        if image.bands == 1:
            image = image.colourspace("srgb")
        return image[0:3].numpy()

    return view


def torchvision_io():
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import center_crop, resize

    torch.set_num_threads(1)

    def view(path):
        image = decode_image(str(path), ImageReadMode.RGB)
        return center_crop(resize(image, [SIZE], antialias=True), [SIZE]).permute(1, 2, 0).numpy()

    return view


PEERS = {
    "Pillow + torchvision": pillow_torchvision,
    "OpenCV (area)": opencv,
    "pyvips (thumbnail)": vips,
    "torchvision.io + v2": torchvision_io,
}


def ours(program, source, flags=()):
    """One round: `bench ingest` on one thread, (images per processor second, that of decoding alone).

    A contestant in Python keeps its memory from round to round. Ours is a new process each time: the median of three
    passes is what it does once it is warm.
    """
    command = [program, "bench", "ingest", source, "--rounds", "3", "--threads", "1", "--json", "--quiet", *flags]
    figures = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures["one_thread"]["per_cpu_second"], figures["decode_only"]["per_cpu_second"]


def drift(program, source, files, view):
    """Share of values that differ from tokengrid's, and the largest difference."""
    import numpy
    from PIL import Image

    differing, values, largest = 0, 0, 0
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([program, "ingest", source, "--out", out, "--quiet"], check=True, capture_output=True)
        for path in files:
            theirs = view(path).astype(int)
            mine = numpy.asarray(Image.open(Path(out) / f"{path.relative_to(source)}.0.png")).astype(int)
            difference = abs(theirs - mine)
            differing += int((difference > 0).sum())
            values += difference.size
            largest = max(largest, int(difference.max()))
    return differing / values, largest


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    files = sorted(path for path in args.source.rglob("*") if path.suffix.lower() in ENDINGS)
    contestants, views = {}, {}
    for name, make in PEERS.items():
        try:
            view = make()
            view(files[0])
        except Exception as error:  # a peer that fails must not stop the other peers
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        views[name] = view
        contestants[name] = lambda view=view: per_cpu_second(len(files), lambda: [view(path) for path in files])
    decoding = []

    def tokengrid():
        rate, decode = ours(args.program, args.source)
        decoding.append(decode)
        return rate

    contestants["tokengrid ingest"] = tokengrid
    figures = Rounds(contestants, args.rounds).run()
    figures["pure decoding (libjpeg-turbo)"] = decoding[: args.rounds]
    notes = [f"{len(files)} images of {args.source}"]
    for name, view in views.items():
        share, largest = drift(args.program, args.source, files, view)
        notes.append(f"{name}: {100 * share:.2f} % of its values differ from ours, by {largest} at most")
    record(args, "images / processor second", figures, "tokengrid ingest", notes)


if __name__ == "__main__":
    main()
