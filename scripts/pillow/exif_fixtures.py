"""Writes ingest/tests/fixtures/exif: small files with orientations, and the transposition of each by Pillow's ImageOps.exif_transpose.

    python scripts/pillow/exif_fixtures.py ingest/tests/fixtures/exif

Needs Pillow 13 or newer.
"""

import io
import json
import struct
import sys
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps

METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def picture():
    """A picture that looks different in every orientation."""
    image = Image.new("RGB", (24, 16))
    image.putdata([(x * 10, y * 15, (x * y) % 256) for y in range(16) for x in range(24)])
    return image


def orientation(data):
    """Which transposition exif_transpose did; 1 if none, or if it fails."""
    image = Image.open(io.BytesIO(data))
    image.load()  # all of them are valid pictures
    try:
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    except Exception:
        return 1
    same = [n for n, method in METHODS.items() if image.transpose(method).tobytes() == turned.tobytes()
            and image.transpose(method).size == turned.size]
    if same:
        return same[0]
    assert turned.tobytes() == image.tobytes() and turned.size == image.size
    return 1


def tiff(entries, order="<", magic=b"\x2a\x00", count=None, tail=b""):
    """Exif data: entries are (tag, type, count, value bytes of 4 or an int)."""
    directory = struct.pack(order + "H", len(entries) if count is None else count)
    for tag, kind, number, value in entries:
        value = struct.pack(order + "L", value) if isinstance(value, int) else value.ljust(4, b"\0")
        directory += struct.pack(order + "HHL", tag, kind, number) + value
    head = (b"II" if order == "<" else b"MM") + magic
    return head + struct.pack(order + "L", 8) + directory + b"\0\0\0\0" + tail


def short(value, order="<"):
    return [(274, 3, 1, struct.pack(order + "H", value))]


def exif_kinds():
    """Exif data of every kind: name, bytes."""
    for value in range(10):
        yield f"short{value}", tiff(short(value))
    yield "big_endian", tiff(short(6, ">"), ">", b"\x00\x2a")
    yield "swapped_magic", tiff(short(6), "<", b"\x00\x2a")
    yield "swapped_magic_be", tiff(short(5, ">"), ">", b"\x2a\x00")
    yield "bigtiff_le", tiff(short(6), "<", b"\x2b\x00")
    yield "bigtiff_be", tiff(short(7, ">"), ">", b"\x00\x2b")
    yield "not_tiff", b"XX\x2a\x00" + tiff(short(6))[4:]
    yield "empty", b""
    yield "head_only", b"II\x2a\x00\x08"
    yield "cut_entry", tiff(short(6))[:16]
    yield "no_next", tiff(short(6))[:-4]
    yield "long", tiff([(274, 4, 1, 8)])
    yield "byte", tiff([(274, 1, 1, b"\x06")])
    yield "ascii", tiff([(274, 2, 2, b"6\0")])
    yield "signed_byte", tiff([(274, 6, 1, b"\x03")])
    yield "undefined", tiff([(274, 7, 1, b"\x06")])
    yield "signed_short", tiff([(274, 8, 1, b"\x05\x00")])
    yield "signed_long", tiff([(274, 9, 1, 4)])
    yield "float", tiff([(274, 11, 1, struct.pack("<f", 6.0))])
    yield "fraction", tiff([(274, 11, 1, struct.pack("<f", 6.5))])
    yield "double", tiff([(274, 12, 1, 26)], tail=struct.pack("<d", 7.0))
    yield "rational", tiff([(274, 5, 1, 26)], tail=struct.pack("<LL", 12, 2))
    yield "rational_zero", tiff([(274, 5, 1, 26)], tail=struct.pack("<LL", 6, 0))
    yield "signed_rational", tiff([(274, 10, 1, 26)], tail=struct.pack("<ll", -12, -2))
    yield "long8", tiff([(274, 16, 1, 26)], tail=struct.pack("<Q", 6))
    yield "two_values", tiff([(274, 3, 2, struct.pack("<HH", 6, 3))])
    yield "three_values", tiff([(274, 3, 3, 26)], tail=struct.pack("<HHH", 8, 3, 1))
    yield "no_values", tiff([(274, 3, 0, 6)])
    yield "unknown_type", tiff([(274, 99, 1, 6)])
    yield "twice", tiff(short(6) + short(3))
    yield "unknown_then_known", tiff([(274, 99, 1, 6)] + short(3))
    yield "behind_missing_data", tiff([(271, 2, 20, 20)] + short(6))
    yield "behind_too_long_data", tiff([(271, 2, 100000, 8)] + short(6))
    yield "prefix_twice", b"Exif\0\0" + tiff(short(6))
    yield "directory_behind_the_end", b"II\x2a\x00\xff\xff\xff\x7f" + tiff(short(6))[8:]


def jpeg_segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(*segments):
    out = io.BytesIO()
    picture().save(out, "JPEG", quality=30)
    data = out.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


def png_chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(before=(), after=()):
    out = io.BytesIO()
    picture().quantize(8).save(out, "PNG", optimize=True)
    data = out.getvalue()
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(before) + data[at:-12] + b"".join(after) + data[-12:]


def webp(exif=None, xmp=None):
    out = io.BytesIO()
    more = {key: value for key, value in (("exif", exif), ("xmp", xmp)) if value is not None}
    picture().save(out, "WEBP", quality=1, method=6, **more)
    return out.getvalue()


XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


def xmp(value, form=b'tiff:Orientation="%d"'):
    return b"<x:xmpmeta>" + form % value + b"</x:xmpmeta>"


def raw_profile(data, lines=3):
    return b"\n" * (lines - 2) + b"exif\n%8d\n" % len(data) + data.hex().encode() + b"\n"


def itxt(key, text, compressed=0, method=0):
    text = zlib.compress(text) if compressed else text
    return png_chunk(b"iTXt", key + bytes([0, compressed, method, 0, 0]) + text)


def files():
    """All fixtures: name, bytes."""
    exif = dict(exif_kinds())
    six, three, none = exif["short6"], exif["short3"], tiff([(271, 2, 2, b"a\0")])
    app1 = lambda data: jpeg_segment(0xE1, b"Exif\0\0" + data)
    for name, data in exif.items():
        yield f"{name}.jpg", jpeg(app1(data))
    for name in ("short6", "big_endian", "not_tiff", "rational", "prefix_twice", "empty"):
        yield f"{name}.png", png([png_chunk(b"eXIf", exif[name])])
    for name in ("short8", "big_endian", "not_tiff", "bigtiff_be"):
        yield f"{name}.webp", webp(exif=exif[name])
    xmp_app1 = lambda text: jpeg_segment(0xE1, XMP_HEAD + text)
    yield "split.jpg", jpeg(app1(six[:14]), app1(six[14:]))
    yield "padded_marker.jpg", jpeg(b"\xff\xff" + app1(six))
    yield "junk_between.jpg", jpeg(jpeg_segment(0xE3, b"") + b"junk" + app1(six))
    yield "xmp.jpg", jpeg(xmp_app1(xmp(5)))
    yield "xmp_element.jpg", jpeg(xmp_app1(xmp(7, b"<tiff:Orientation>%d</tiff:Orientation>")))
    yield "xmp_single_quote.jpg", jpeg(xmp_app1(xmp(7, b"tiff:Orientation='%d'")))
    yield "xmp_second_name.jpg", jpeg(xmp_app1(b"tiff:Orientation, " + xmp(4)))
    yield "xmp_nine.jpg", jpeg(xmp_app1(xmp(9)))
    yield "xmp_last_counts.jpg", jpeg(xmp_app1(xmp(5)), xmp_app1(xmp(2)))
    yield "exif_before_xmp.jpg", jpeg(app1(three), xmp_app1(xmp(5)))
    yield "exif_without_tag_and_xmp.jpg", jpeg(app1(none), xmp_app1(xmp(5)))
    yield "bad_exif_and_xmp.jpg", jpeg(app1(exif["not_tiff"]), xmp_app1(xmp(5)))
    yield "byte_tag_and_xmp.jpg", jpeg(app1(exif["byte"]), xmp_app1(xmp(5)))
    yield "exif_behind_picture.png", png(after=[png_chunk(b"eXIf", six)])
    yield "last_exif_counts.png", png([png_chunk(b"eXIf", six)], [png_chunk(b"eXIf", three)])
    for name, lines in (("raw_profile", 3), ("raw_profile_short_head", 2), ("raw_profile_long_head", 4)):
        yield f"{name}.png", png([png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(
            raw_profile(b"Exif\0\0" + six, lines)))])
    yield "raw_profile_text.png", png([png_chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(six))])
    yield "raw_profile_not_hex.png", png([png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\nzz")])
    yield "raw_profile_and_exif.png", png([png_chunk(b"eXIf", three), png_chunk(
        b"tEXt", b"Raw profile type exif\0" + raw_profile(six))])
    yield "raw_profile_itxt.png", png([itxt(b"Raw profile type exif", raw_profile(six), 1)])
    yield "text_exif.png", png([png_chunk(b"tEXt", b"exif\0" + six)])
    yield "ztext_exif.png", png([png_chunk(b"zTXt", b"exif\0\0" + zlib.compress(six))])
    yield "xmp.png", png([itxt(b"XML:com.adobe.xmp", xmp(6))])
    yield "xmp_compressed.png", png([itxt(b"XML:com.adobe.xmp", xmp(6), 1)])
    yield "xmp_method.png", png([itxt(b"XML:com.adobe.xmp", xmp(6), 1, 1)])
    yield "xmp_behind.png", png(after=[itxt(b"XML:com.adobe.xmp", xmp(6))])
    yield "xmp_tEXt.png", png([png_chunk(b"tEXt", b"XML:com.adobe.xmp\0" + xmp(3))])
    yield "xmp_key_text.png", png([png_chunk(b"tEXt", b"xmp\0" + xmp(3))])
    yield "xmp_not_utf8.png", png([itxt(b"XML:com.adobe.xmp", b"\xff" + xmp(3))])
    yield "xmp.webp", webp(xmp=xmp(8))
    yield "xmp_and_exif.webp", webp(exif=three, xmp=xmp(8))
    unflagged = bytearray(webp(exif=six))
    unflagged[20] &= ~8  # VP8X says that there is no Exif
    yield "unflagged.webp", bytes(unflagged)


def main():
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, data in files():
        (folder / name).write_bytes(data)
        expected[name] = orientation(data)
    (folder / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")
    print(f"{len(expected)} files, {len(set(expected.values()))} orientations")


if __name__ == "__main__":
    main()
