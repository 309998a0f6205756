#!/usr/bin/env python3
"""Wakes dead bits of a tokenizer: channels of h whose sign is the same nearly everywhere.

    python3 scripts/tiny/wake_bits.py IN.safetensors OUT.safetensors PHOTO_FOLDER

Where a bit never changes, the loss has no gradient that would change it: what the channel says about a picture is a small
wiggle about +1 or -1. The last convolution of the encoder is linear, so the wiggle can be centred and amplified there:
afterwards the bit is set in about half of the places, and further training teaches the decoder what it means. The other
bits stay as they are. Needs torch, safetensors and Pillow.
"""

import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as functional
from PIL import Image
from safetensors.torch import load_file, save_file

NUM_PHOTOS = 40
SIDE = 256
SPREAD = 0.8
DEAD_BELOW = 0.02


def residual(tensors, name, x):
    y = x
    for part in "12":
        weight, bias = tensors[f"{name}.norm{part}.weight"], tensors[f"{name}.norm{part}.bias"]
        y = functional.silu(functional.group_norm(y, 32, weight, bias, 1e-6))
        y = functional.conv2d(y, tensors[f"{name}.conv{part}.weight"], padding=1)
    shortcut = tensors.get(f"{name}.nin_shortcut.weight")
    return y + (x if shortcut is None else functional.conv2d(x, shortcut))


def blocks(tensors, name, x):
    number = 0
    while f"{name}.{number}.conv1.weight" in tensors:
        x = residual(tensors, f"{name}.{number}", x)
        number += 1
    return x


def encode(tensors, x):
    """Images [B, 3, H, W] to h [B, z, H/f, W/f]."""
    x = functional.conv2d(x, tensors["encoder.conv_in.weight"], padding=1)
    level = 0
    while f"encoder.down.{level}.block.0.conv1.weight" in tensors:
        x = blocks(tensors, f"encoder.down.{level}.block", x)
        down = f"encoder.down.{level}.downsample"
        if f"{down}.weight" in tensors:
            x = functional.conv2d(x, tensors[f"{down}.weight"], tensors[f"{down}.bias"], stride=2, padding=1)
        level += 1
    x = blocks(tensors, "encoder.mid_block", x)
    x = functional.group_norm(x, 32, tensors["encoder.norm_out.weight"], tensors["encoder.norm_out.bias"], 1e-6)
    return functional.conv2d(functional.silu(x), tensors["encoder.conv_out.weight"], tensors["encoder.conv_out.bias"])


def read(path):
    photo = Image.open(path).convert("RGB")
    scale = SIDE / min(photo.size)
    photo = photo.resize([max(SIDE, round(length * scale)) for length in photo.size], Image.BILINEAR)
    left, top = ((length - SIDE) // 2 for length in photo.size)
    pixels = bytearray(photo.crop((left, top, left + SIDE, top + SIDE)).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(1, SIDE, SIDE, 3).permute(0, 3, 1, 2) / 127.5 - 1


def main():
    source, target, photos = sys.argv[1:]
    tensors = {name: tensor.float() for name, tensor in load_file(source).items()}
    paths = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    paths = random.Random(0).sample(paths, min(NUM_PHOTOS, len(paths)))
    with torch.no_grad():
        h = torch.cat([encode(tensors, read(path))[0].flatten(1) for path in paths], 1)
    for bit, values in enumerate(h):
        share = (values > 0).float().mean().item()
        if DEAD_BELOW <= share <= 1 - DEAD_BELOW:
            continue
        gain = SPREAD / values.std()
        tensors["encoder.conv_out.weight"][bit] *= gain
        tensors["encoder.conv_out.bias"][bit] = (tensors["encoder.conv_out.bias"][bit] - values.mean()) * gain
        print(f"bit {bit}: was set in {share:.1%} of {values.numel()} places; centred, times {gain:.1f}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target)


if __name__ == "__main__":
    main()
