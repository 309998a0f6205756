"""The corpus of damaged files (ingest/tests/damaged): the valid files that it is made from, and Pillow's verdicts.

    python scripts/pillow/damaged_corpus.py seeds ingest/tests/fixtures/damaged/seeds
    TOKENGRID_DAMAGED_OUT=/tmp/damaged cargo test --release -p tokengrid-ingest --test damaged write_the_corpus
    python scripts/pillow/damaged_corpus.py expect /tmp/damaged ingest/tests/fixtures/damaged/expected.json

The test damages the seeds, always in the same way; the second command writes what it makes to a folder, and the third
asks Pillow about every file. Needs Pillow 13 or newer.
"""

import json
import random
import sys
import zlib
from pathlib import Path

from PIL import Image

import pictures
import reference

SIZE = (24, 18)


def picture(mode):
    """A picture with edges, gradients and many values."""
    image = Image.new("RGB", SIZE)
    image.putdata([((x * 11) % 256, (y * 14 + x) % 256, 255 if (x // 4 + y // 3) % 2 else x * y % 200)
                   for y in range(SIZE[1]) for x in range(SIZE[0])])
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
        return image
    return image.quantize(20) if mode == "P" else image.convert(mode)


def seeds():
    """The valid files: name, bytes."""
    save = pictures.saved
    rgb, other = picture("RGB"), picture("RGB").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    yield "baseline.jpg", save(rgb, "JPEG", quality=80)
    yield "sharp.jpg", save(rgb, "JPEG", quality=95, subsampling=0)
    yield "progressive.jpg", save(rgb, "JPEG", quality=80, progressive=True)
    yield "restart.jpg", save(rgb, "JPEG", quality=80, restart_marker_blocks=1)
    yield "gray.jpg", save(picture("L"), "JPEG", quality=80)
    yield "cmyk.jpg", save(picture("CMYK"), "JPEG", quality=80)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        yield f"{mode.lower()}.png", save(picture(mode), "PNG")
    yield "gray16.png", save(Image.frombytes("I;16", SIZE, random.Random(1).randbytes(864)), "PNG")
    yield "animated.png", save(rgb, "PNG", save_all=True, append_images=[other], duration=50)
    yield "plain.gif", save(picture("P"), "GIF", interlace=0)
    yield "interlaced.gif", save(picture("P"), "GIF", interlace=1, transparency=3)
    yield "animated.gif", save(picture("P"), "GIF", save_all=True, append_images=[other.quantize(20)], duration=50)
    yield "lossy.webp", save(rgb, "WEBP", quality=60)
    yield "lossless.webp", save(rgb, "WEBP", lossless=True)
    yield "alpha.webp", save(picture("RGBA"), "WEBP", quality=60)
    yield "animated.webp", save(rgb, "WEBP", save_all=True, append_images=[other], duration=50, quality=60)
    yield "rgb.bmp", save(rgb, "BMP")
    yield "palette.bmp", save(picture("P"), "BMP")
    yield "bilevel.bmp", save(picture("1"), "BMP")


def write_seeds(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        assert reference.decode(data) is not None, name
        (folder / name).write_bytes(data)


def expect(folder, table):
    """One line per file: its CRC, and Pillow's result."""
    verdicts = {}
    for path in sorted(Path(folder).iterdir()):
        data = path.read_bytes()
        verdicts[path.name] = verdict = {"file_crc": zlib.crc32(data), "ok": False}
        image = reference.decode(data)
        if image is not None:
            verdict |= {"ok": True, "width": image.width, "height": image.height, "crc": zlib.crc32(image.tobytes())}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(verdict)}" for name, verdict in verdicts.items())
    Path(table).write_text("{\n" + lines + "\n}\n")
    print(f"{len(verdicts)} files, {sum(v['ok'] for v in verdicts.values())} accepted")


if __name__ == "__main__":
    {"seeds": write_seeds, "expect": expect}[sys.argv[1]](*sys.argv[2:])
