"""Random image files: shapes, modes, containers and their options."""

import io
import struct

from PIL import Image, ImageFile

import raw_bmp
import raw_png

MAX_SIDE = 900

# libjpeg's optimising encoder cannot suspend when its output buffer is full.
ImageFile.MAXBLOCK = 1 << 23


def shape(random):
    """(width, height): from one pixel to the size of a photograph, some far from square."""
    kind = random.random()
    if kind < 0.1:
        return random.randint(1, 20), random.randint(1, 20)
    if kind < 0.2:
        sides = [random.randint(1, 12), random.randint(100, MAX_SIDE)]
        random.shuffle(sides)
        return tuple(sides)
    if kind < 0.95:
        return random.randint(8, 320), random.randint(8, 320)
    return random.randint(300, MAX_SIDE), random.randint(300, MAX_SIDE)


def picture(random, size, mode):
    """Noise, blocks or smooth gradients."""
    width, height = size
    kind = random.random()
    if kind < 0.3:
        small = (max(1, width // random.randint(2, 30)), max(1, height // random.randint(2, 30)))
    elif kind < 0.4:
        small = (1, 1)
    else:
        small = size
    image = Image.frombytes("RGB", small, random.randbytes(small[0] * small[1] * 3))
    smooth = random.choice([Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
    image = image.resize(size, smooth)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.frombytes("L", (7, 5), random.randbytes(35)).resize(size, smooth))
        return image
    if mode == "P":
        return image.quantize(random.choice([2, 3, 16, 17, 200, 256]), method=Image.Quantize.FASTOCTREE)
    return image.convert(mode)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(random, size):
    mode = random.choice(["RGB", "RGB", "RGB", "RGB", "L", "CMYK"])
    options = {"quality": random.randint(1, 100), "progressive": random.random() < 0.3, "optimize": random.random() < 0.3}
    if mode == "RGB":
        options["subsampling"] = random.randint(0, 2)
        options["keep_rgb"] = random.random() < 0.1
        if options["keep_rgb"]:
            options["subsampling"] = 0
    if random.random() < 0.2:
        options["restart_marker_blocks"] = random.randint(1, 20)
    if random.random() < 0.2:
        options["exif"] = exif(random)
    return saved(picture(random, size, mode), "JPEG", **options)


def exif(random):
    data = Image.Exif()
    data[0x0112] = random.randint(1, 8)
    return data.tobytes()


def png(random, size):
    if random.random() < 0.6 and size[0] * size[1] < 200_000:
        return raw_png.png(random, *size)
    mode = random.choice(["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
    if mode == "I;16":
        data = random.randbytes(size[0] * size[1] * 2)
        return saved(Image.frombytes(mode, size, data), "PNG", compress_level=1)
    options = {"compress_level": random.choice([0, 1, 6])}
    if mode == "P" and random.random() < 0.5:
        options["transparency"] = random.randrange(2)
    if random.random() < 0.2:
        options["exif"] = exif(random)
    image = picture(random, size, mode)
    if mode in ("RGB", "RGBA") and random.random() < 0.1:
        options |= {"save_all": True, "append_images": [picture(random, size, mode)]}
    return saved(image, "PNG", **options)


def gif(random, size):
    image = picture(random, size, random.choice(["P", "P", "L", "1", "RGB"]))
    options = {"interlace": random.random() < 0.5}
    if random.random() < 0.4:
        options["transparency"] = random.randrange(4)
    if random.random() < 0.3:
        options |= {"save_all": True, "append_images": [picture(random, size, "P")], "disposal": random.randrange(4)}
    data = bytearray(saved(image, "GIF", **options))
    if random.random() < 0.4:  # a canvas that the frame does not fill, or exceeds
        table = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
        at = table
        while data[at] == 0x21:  # extensions
            at += 2
            while data[at]:
                at += data[at] + 1
            at += 1
        struct.pack_into("<HH", data, at + 1, random.randrange(20), random.randrange(20))
        struct.pack_into("<HH", data, 6, *(max(1, side + random.randint(-5, 30)) for side in size))
    return bytes(data)


def webp(random, size):
    image = picture(random, size, random.choice(["RGB", "RGB", "RGBA"]))
    options = {"quality": random.randint(0, 100), "method": random.choice([0, 0, 2, 4]), "lossless": random.random() < 0.4,
               "exact": random.random() < 0.3}
    if random.random() < 0.15:
        options |= {"save_all": True, "append_images": [picture(random, size, image.mode)], "duration": 100}
    if random.random() < 0.2:
        options["exif"] = exif(random)
    return saved(image, "WEBP", **options)


def bmp(random, size):
    if random.random() < 0.8 and size[0] * size[1] < 200_000:
        return raw_bmp.bmp(random, *size)
    return saved(picture(random, size, random.choice(["RGB", "RGBA", "L", "P", "1"])), "BMP")


KINDS = {"jpeg": jpeg, "png": png, "gif": gif, "webp": webp, "bmp": bmp}
WEIGHTS = {"jpeg": 8, "png": 6, "gif": 3, "webp": 3, "bmp": 3}


def image_file(random, size=None, kind=None):
    """A random file: (kind, bytes)."""
    kind = kind or random.choices(list(WEIGHTS), WEIGHTS.values())[0]
    return kind, KINDS[kind](random, size or shape(random))
