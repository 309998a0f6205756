"""A GPT in PyTorch that learns to continue token grids, from a cache: `python train_ar.py CACHE [--steps N] [--out FILE]`.

Each token is predicted from the class and the tokens before it, in two parts as Open-MAGVIT2 does: the low bits, then the high ones
given the low. Stop it at any time; the same line goes on where the last checkpoint was, with any number of workers.
"""

import argparse
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

from tokengrid import lfq
from tokengrid.torch import TokenStream


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    def __init__(self, num_tokens, num_classes, low_bits, high_bits, dim, heads, layers):
        super().__init__()
        self.low_bits, self.label = low_bits, nn.Embedding(num_classes + 1, dim)
        self.low, self.high = nn.Embedding(2**low_bits, dim), nn.Embedding(2**high_bits, dim)
        self.position = nn.Parameter(torch.randn(num_tokens, dim) * 0.02)
        self.blocks, self.norm = nn.Sequential(*(Block(dim, heads) for _ in range(layers))), nn.LayerNorm(dim)
        self.to_low, self.to_high = nn.Linear(dim, 2**low_bits), nn.Linear(dim, 2**high_bits)

    def forward(self, tokens, labels):
        low, high = lfq.split(tokens, self.low_bits)
        known = (self.low(low) + self.high(high))[:, :-1]
        x = torch.cat([self.label(labels + 1)[:, None], known], 1) + self.position  # label -1: no class
        x = self.norm(self.blocks(x))
        loss = F.cross_entropy(self.to_low(x).flatten(0, 1), low.flatten())
        return loss + F.cross_entropy(self.to_high(x + self.low(low)).flatten(0, 1), high.flatten())


parser = argparse.ArgumentParser()
parser.add_argument("cache")
parser.add_argument("--out", default="train_ar.pt")
for flag, default in dict(steps=1000, batch=32, workers=0, dim=384, heads=6, layers=6).items():
    parser.add_argument(f"--{flag}", type=int, default=default)
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
stream = TokenStream(args.cache, args.batch, seed=0)
bits, num_classes = stream.cache.bits, int(stream.cache.labels.max()) + 1
model = Model(stream.cache.num_tokens, num_classes, bits // 3, bits - bits // 3, args.dim, args.heads, args.layers).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05)
done = 0
if os.path.exists(args.out):
    saved = torch.load(args.out, map_location=device)
    model.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"]), stream.load_state_dict(saved["stream"])
    done = saved["step"]
first, began = done, time.time()
for tokens, labels in DataLoader(stream, batch_size=None, num_workers=args.workers, pin_memory=device == "cuda"):
    if done >= args.steps:
        break
    loss = model(tokens.to(device, non_blocking=True), labels.to(device, non_blocking=True))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    done += 1
    if done % 10 == 0 or done == args.steps:
        print(f"step {done}, epoch {stream.state_dict(done - first)['position'] / stream.cache.num_images:.2f}, loss {loss:.3f}", flush=True)
    if done % 100 == 0 or done == args.steps:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "stream": stream.state_dict(done - first)}
        torch.save({**state, "step": done}, f"{args.out}.new")
        os.replace(f"{args.out}.new", args.out)
