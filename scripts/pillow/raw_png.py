"""PNG files of every colour type, depth and interlacing, also those that Pillow does not write.

The rows hold random bytes behind random filter types: what they decode to is for the decoders to say.
"""

import struct
import zlib

LAYOUTS = [(depth, color) for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16),
                                                 6: (8, 16)}.items() for depth in depths]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def header(width, height, depth, color, interlaced=0):
    return chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, color, 0, 0, interlaced))


def rows(random, width, height, depth, color, interlaced):
    """Random rows, as they are before compression."""
    out = []
    for x0, y0, dx, dy in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-(width - x0) // dx), -(-(height - y0) // dy)
        if columns <= 0 or lines <= 0:
            continue
        row_bytes = (columns * CHANNELS[color] * depth + 7) // 8
        for _ in range(lines):
            fill = random.randbytes(row_bytes) if random.random() < 0.3 else bytes([random.randrange(8)]) * row_bytes
            out.append(bytes([random.randrange(5)]) + fill)
    return b"".join(out)


def png(random, width, height):
    """A random PNG file."""
    depth, color = random.choice(LAYOUTS)
    interlaced = random.random() < 0.4
    parts = [SIGNATURE, header(width, height, depth, color, int(interlaced))]
    if color == 3:
        parts.append(chunk(b"PLTE", random.randbytes(3 * random.randint(1, 256))))
    if color in (0, 2, 3) and random.random() < 0.4:
        parts.append(chunk(b"tRNS", random.randbytes({0: 2, 2: 6, 3: random.randint(1, 256)}[color])))
    if random.random() < 0.3:
        parts.append(chunk(b"gAMA", struct.pack(">L", 45455)))
    data = zlib.compress(rows(random, width, height, depth, color, interlaced), random.choice([1, 6]))
    step = random.choice([len(data), 100, 8192]) or 1
    parts += [chunk(b"IDAT", data[at:at + step]) for at in range(0, len(data), step)]
    parts.append(chunk(b"IEND", b""))
    return b"".join(parts)
