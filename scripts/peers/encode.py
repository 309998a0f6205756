#!/usr/bin/env python3
"""The tokenizer's encoder: `bench encode` compared with the same network in PyTorch, eager, alternately.

    python3 scripts/peers/encode.py [--size 256] [--threads N] [--rounds 5] [--env DIR]

Both sides have full-size weights made by the same formula, encode the same view of noise, one at a time, with the same number
of threads, and are timed by the clock. PyTorch is measured as models are usually written (row-major) and channels last. The
tokens are compared: a bit may differ only where PyTorch's |h| is below 1e-3.
"""

import json
import os
import subprocess
import sys
import time

from common import Rounds, arguments, inside, record

PACKAGES = {"torch": "torch==2.11.0", "numpy": "numpy"}
SALT = "v1:bench:"
CH, CH_MULT, BLOCKS, BITS = 128, [1, 1, 2, 2, 4], 4, 18
MARGIN = 1e-3


def stream(name, count):
    """Numbers in [-1, 1): a splitmix64 counter, seeded by the FNV-1a hash of `name`."""
    import numpy

    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    z = numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15) + numpy.uint64(seed)
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    z ^= z >> numpy.uint64(31)
    return 2.0 * ((z >> numpy.uint64(40)).astype(numpy.float64) / 2**24) - 1.0


def encoder():
    """The network of the published 256-pixel tokenizer, with PyTorch's modules."""
    import torch
    from torch import nn

    def norm(channels):
        return nn.GroupNorm(32, channels, eps=1e-6)

    def conv(inputs, outputs, stride=1, bias=False):
        return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)

    def swish(x):
        return x * torch.sigmoid(x)

    class ResBlock(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs)
            self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs)
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

        def forward(self, x):
            y = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
            return self.nin_shortcut(x) + y

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_in, self.down, channels = conv(3, CH), nn.ModuleList(), CH
            for place, mult in enumerate(CH_MULT):
                level = nn.Module()
                level.block = nn.Sequential()
                for _ in range(BLOCKS):
                    level.block.append(ResBlock(channels, CH * mult))
                    channels = CH * mult
                last = place + 1 == len(CH_MULT)
                level.downsample = nn.Identity() if last else conv(channels, channels, 2, True)
                self.down.append(level)
            self.mid_block = nn.Sequential(*(ResBlock(channels, channels) for _ in range(BLOCKS)))
            self.norm_out, self.conv_out = norm(channels), nn.Conv2d(channels, BITS, 1)

        def forward(self, x):
            x = self.conv_in(x)
            for level in self.down:
                x = level.downsample(level.block(x))
            return self.conv_out(swish(self.norm_out(self.mid_block(x))))

    model = Encoder().eval()
    for name, tensor in model.named_parameters():
        values = stream(f"{SALT}encoder.{name}", tensor.numel())
        if tensor.dim() > 1:
            values *= (3.0 / tensor[0].numel()) ** 0.5
        else:
            values = (1.0 if name.endswith("weight") else 0.0) + 0.1 * values
        tensor.data = torch.from_numpy(values.astype("float32")).view(tensor.shape)
    return model


def view(size):
    """The input view of `bench encode`."""
    import numpy
    import torch

    pixels = ((stream(f"{SALT}pixels", size * size * 3) + 1.0) * 128.0).astype(numpy.uint8)
    image = torch.from_numpy((pixels.astype(numpy.float64) / 127.5 - 1.0).astype(numpy.float32))
    return image.view(1, size, size, 3).permute(0, 3, 1, 2).contiguous()


def tokens(h):
    """Signs as integers, channel 0 the least significant bit."""
    bits = (h[0] > 0).flatten(1).long()
    return [int(sum(int(bit) << k for k, bit in enumerate(position))) for position in bits.T]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="side of the view (default 256)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides (default: all cores)")
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    model, image = encoder(), view(args.size)
    last = encoder().to(memory_format=torch.channels_last)
    image_last = image.to(memory_format=torch.channels_last)
    h = model(image)
    last(image_last)
    ours = {}

    def tokengrid():
        command = [args.program, "bench", "encode", "--size", str(args.size), "--rounds", "3", "--device", "cpu"]
        command += ["--threads", str(args.threads), "--json", "--quiet"]
        ours.update(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        return ours["images_per_second"]

    def pytorch(model, image):
        # As ours: the median of three passes, after one to warm up.
        took = []
        for _ in range(3):
            start = time.perf_counter()
            model(image)
            took.append(time.perf_counter() - start)
        return 1.0 / sorted(took)[1]

    contestants = {
        "tokengrid": tokengrid,
        "PyTorch, eager": lambda: pytorch(model, image),
        "PyTorch, eager, channels last": lambda: pytorch(last, image_last),
    }
    figures = Rounds(contestants, args.rounds).run()
    differing = [mine ^ theirs for mine, theirs in zip(ours["tokens"], tokens(h), strict=True)]
    sure = [sum(int(v) << k for k, v in enumerate(place)) for place in (h[0].abs() > MARGIN).flatten(1).long().T]
    outside = sum((bits & mask).bit_count() for bits, mask in zip(differing, sure, strict=True))
    count = sum(bits.bit_count() for bits in differing)
    notes = [
        f"one view of {args.size} pixels, {args.threads} threads",
        f"{count} of {h.numel()} bits differ from PyTorch's, {outside} of them not near 0",
    ]
    record(args, "images / second", figures, "tokengrid", notes)
    if outside:
        sys.exit("the tokens differ from those of PyTorch")


if __name__ == "__main__":
    main()
