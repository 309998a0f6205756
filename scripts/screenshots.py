#!/usr/bin/env python3
"""Makes the pictures of docs/src/inspector.md: starts `tokengrid view` over the bundled photographs and lets a Chromium that
runs without a window look at its pages. Look at the results with your own eyes.

    scripts/screenshots.py [--program target/release/tokengrid] [--out docs/src/images]

Needs Pillow. Without a Chromium nothing is made, and the reason is printed.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DARK = "--blink-settings=preferredColorScheme=0"

WIDTH = 1120

# Name, address, height, more arguments.
PAGES = (
    ("overview", "/", 800, ()),
    ("grid", "/grid?view=0&size=130&row=24", 590, ()),
    ("sample", "/sample/46", 800, ()),
    ("codebook", "/codebook", 800, ()),
    ("classes", "/classes?sort=rows", 700, (DARK,)),
    ("duplicates", "/duplicates", 520, ()),
    ("similar", "/similar/46", 640, ()),
    ("map", "/map?size=9", 640, ()),
    ("selection", "/selection?rows=12,20-31,46", 700, ()),
)


# Duplicate files, so that the page of duplicates is not empty.
COPIES = (
    ("data/photos/n02123045/n02123045_11.JPEG", "data/photos/n02123045/n02123045_2.JPEG"),
    ("data/photos/n04099429/n04099429_11.JPEG", "data/photos/n09818022/n09818022_4.JPEG"),
)


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


def tokenize(program, folder):
    # Relative paths: they are seen on the pictures.
    photos = {photo.relative_to(ROOT): photo for photo in (ROOT / "data/photos").glob("*/*.JPEG")}
    for name, photo in [*photos.items(), *((pathlib.Path(copy), ROOT / of) for copy, of in COPIES)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(photo)
    arguments = ["tokenize", "data/photos", "--tokenizer", "tiny", "--size", "128", "--views", "center+flip", "--out", "photos-tokens"]
    subprocess.run([program, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def serve(program, folder):
    """Starts the server; the process and its address."""
    command = [program, "view", "photos-tokens", "--tokenizer", "tiny", "--source", "data/photos", "--port", "0"]
    command += ["--class-names", str(ROOT / "data/classes.txt"), "--export-dir", "."]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()[0]


def warm_up(address):
    """Computes statistics and map before the screenshots, which would otherwise show progress pages."""
    for work in ("statistics", "map"):
        url = f"{address}/api/{work}"
        urllib.request.urlopen(url, data=b"").close()
        while json.load(urllib.request.urlopen(url))["state"] == "running":
            time.sleep(0.1)


def shoot(browser, url, path, profile, height, more):
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{height}"]
    # Virtual time advances only when no request is pending, so pages are complete.
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", f"--screenshot={path}", *more, url]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shrink(path):
    """Saves a screenshot as WebP: without loss in 64 colours, or with loss where photographs make that smaller."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    few = image.quantize(colors=64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    exact, lossy = path.with_suffix(".exact.webp"), path.with_suffix(".lossy.webp")
    few.save(exact, lossless=True, quality=100, method=6)
    image.save(lossy, quality=80, method=6)
    return min(exact, lossy, key=lambda file: file.stat().st_size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/tokengrid"))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/src/images")
    arguments = parser.parse_args()
    browser = chromium()
    if browser is None:
        print("skipped: there is no Chromium (Debian: apt-get install chromium)", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        program = pathlib.Path(arguments.program).resolve()
        tokenize(program, folder)
        process, address = serve(program, folder)
        try:
            warm_up(address)
            for name, page, height, more in PAGES:
                path = folder / f"view-{name}.png"
                shoot(browser, address + page, path, folder / "profile", height, more)
                picture = arguments.out / f"view-{name}.webp"
                shutil.copy(shrink(path), picture)
                print(f"{picture}  {picture.stat().st_size // 1000} KB")
        finally:
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
