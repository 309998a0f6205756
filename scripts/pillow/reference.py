"""The reference path for an image file: Pillow's pixels, and torchvision's Resize and CenterCrop on them; or ADM's
center_crop_arr, and torchvision's TenCrop of it.

torchvision itself is not needed: both are one Pillow call and a rule for a size or an offset.
"""

import io
import warnings

from PIL import ExifTags, Image

# Pillow reads dozens of formats; these are the ones that tokengrid reads.
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP"]

warnings.simplefilter("ignore")


def decode(data):
    """The picture in RGB, or None if Pillow rejects the file."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.convert("RGB")
    except Exception:  # Pillow's plugins raise various exceptions
        return None


def orientation(data):
    """What ImageOps.exif_transpose takes the orientation for: 1 to 8, 1 if it does nothing or fails."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    # exif_transpose looks the value up in a dictionary: 6.0 and 12/2 are found, b"\6" is not.
    return {number: number for number in range(2, 9)}.get(value, 1)


def target_size(width, height, size):
    """torchvision's Resize(size): the shorter side becomes `size`."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def center_crop(image, size):
    """Resize(size), then CenterCrop(size)."""
    width, height = target_size(*image.size, size)
    resized = image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def adm_center_crop(image, size):
    """What ADM (openai/guided-diffusion), DiT, LlamaGen, MAR and RAR call center_crop_arr."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    factor = size / min(image.size)
    image = image.resize(tuple(round(side * factor) for side in image.size), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def adm_ten_crop(image, size, factor):
    """LlamaGen's and RAR's ten crops, one below the other: TenCrop(size) of the square of int(size * factor)."""
    square = adm_center_crop(image, int(size * factor))
    room = square.width - size
    center = round(room / 2)
    places = [(0, 0), (room, 0), (0, room), (room, room), (center, center)]
    column = Image.new("RGB", (size, 10 * size))
    for half, source in enumerate((square, square.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        for number, (left, top) in enumerate(places):
            crop = source.crop((left, top, left + size, top + size))
            column.paste(crop, (0, (5 * half + number) * size))
    return column
