"""BMP files of the kinds that Pillow reads: headers, depths, bit fields, run lengths."""

import struct

MASKS = {
    32: [(0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
         (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF00, 0xFF, 0), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
         (0, 0, 0, 0), (1, 2, 4, 8)],
    24: [(0xFF0000, 0xFF00, 0xFF, 0)],
    16: [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0), (0xF00, 0xF0, 0xF, 0)],
}


def run_lengths(random, width, height, four_bits):
    """A random stream of runs, absolute pixels, deltas and line ends."""
    out = bytearray()
    for _ in range(height):
        left = width
        while left > 0:
            count = min(left, random.randint(1, 255))
            kind = random.random()
            if kind < 0.6 or count < 3:
                out += bytes([count, random.randrange(256)])
            elif kind < 0.97:
                data = random.randbytes((count + 1) // 2 if four_bits else count)
                out += bytes([0, count]) + data + b"\0" * (len(data) % 2)
            else:
                out += bytes([0, 2, min(left, 5), random.choice([0, 0, 1])])
            left -= count
        if random.random() < 0.95:
            out += b"\0\0"
    return bytes(out) + b"\0\1"


def palette(random, colors, entry_bytes):
    kind = random.random()
    if kind < 0.2:  # Pillow treats a gray ramp as no palette
        step = 255 if colors == 2 else 1
        entries = [bytes([min(i * step, 255)]) * 3 for i in range(colors)]
    else:
        entries = [random.randbytes(3) for _ in range(colors)]
    return b"".join(entry.ljust(entry_bytes, b"\0") for entry in entries)


def bmp(random, width, height):
    """A random BMP file."""
    size = random.choice([12, 40, 40, 40, 52, 56, 64, 108, 124])
    bits = random.choice([1, 4, 8, 8, 24, 24] if size == 12 else [1, 4, 8, 8, 16, 24, 24, 32, 32])
    compression = 0
    if size != 12 and bits in MASKS and random.random() < 0.5:
        compression = 3
    elif size != 12 and bits in (4, 8) and random.random() < 0.5:
        compression = {8: 1, 4: 2}[bits]
    colors = 0 if size == 12 or random.random() < 0.6 else random.randint(1, 1 << min(bits, 8))
    real_colors = (colors or 1 << bits) if bits <= 8 else 0
    top_down = size != 12 and random.random() < 0.3
    if size == 12:
        info = struct.pack("<LHHHH", size, width, height, 1, bits)
    else:
        info = struct.pack("<LllHHLLLLLL", size, width, -height if top_down else height, 1, bits,
                           compression, 0, 2835, 2835, colors, 0)
    masks = struct.pack("<LLLL", *random.choice(MASKS[bits])) if compression == 3 else b"\0" * 16
    info = (info + masks).ljust(size, b"\0")[:size] if size > 40 else info + (masks[:12] if compression == 3 else b"")
    table = palette(random, real_colors, 3 if size == 12 else 4)
    if compression in (1, 2):
        pixels = run_lengths(random, width, height, compression == 2)
    else:
        stride = (width * bits + 31) // 32 * 4
        pixels = random.randbytes(stride * height)
    offset = 14 + len(info) + len(table)
    stored = random.choice([offset, offset, offset, 0, 14 + size])
    return b"BM" + struct.pack("<LHHL", offset + len(pixels), 0, 0, stored) + info + table + pixels
