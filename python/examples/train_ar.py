"""A GPT in PyTorch that learns to continue token grids, from a cache: `python train_ar.py CACHE`. Run again, it goes on where it was.
A token is predicted in two parts, as Open-MAGVIT2 does: its low bits, then its high bits given the low ones."""

import argparse
import os

import torch
import torch.nn as nn
from tokengrid import lfq
from tokengrid.torch import TokenStream
from torch.utils.data import DataLoader


class Model(nn.Module):
    def __init__(self, num_tokens, num_classes, low_bits, high_bits, dim, heads, layers):
        super().__init__()
        self.low_bits, self.label = low_bits, nn.Embedding(num_classes + 1, dim)
        self.low, self.high = nn.Embedding(2**low_bits, dim), nn.Embedding(2**high_bits, dim)
        self.position = nn.Parameter(torch.randn(num_tokens, dim) * 0.02)
        block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.to_low, self.to_high = nn.Linear(dim, 2**low_bits), nn.Linear(dim, 2**high_bits)

    def forward(self, tokens, labels):
        low, high = lfq.split(tokens, self.low_bits)
        inputs = [self.label(labels + 1)[:, None], (self.low(low) + self.high(high))[:, :-1]]  # label -1: no class
        x = torch.cat(inputs, 1) + self.position
        x = self.blocks(x, nn.Transformer.generate_square_subsequent_mask(x.shape[1], x.device), is_causal=True)
        loss = nn.functional.cross_entropy(self.to_low(x).flatten(0, 1), low.flatten())
        return loss + nn.functional.cross_entropy(self.to_high(x + self.low(low)).flatten(0, 1), high.flatten())


parser = argparse.ArgumentParser()
parser.add_argument("cache")
parser.add_argument("--out", default="train_ar.pt")
for flag, default in dict(steps=1000, batch=32, workers=0, dim=384, heads=6, layers=6).items():
    parser.add_argument(f"--{flag}", type=int, default=default)
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
stream = TokenStream(args.cache, args.batch)
cache, low_bits = stream.cache, stream.cache.bits // 3
model = Model(cache.num_tokens, int(cache.labels.max()) + 1, low_bits, cache.bits - low_bits, args.dim, args.heads, args.layers).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05)
saved = torch.load(args.out, map_location=device) if os.path.exists(args.out) else {"step": 0}
if saved["step"]:
    model.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"]), stream.load_state_dict(saved["stream"])
loader = DataLoader(stream, batch_size=None, num_workers=args.workers)
for step, (tokens, labels) in zip(range(saved["step"] + 1, args.steps + 1), loader):
    loss = model(tokens.to(device), labels.to(device))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step(), optimizer.zero_grad()
    if step % 10 == 0 or step == args.steps:
        print(f"step {step}, loss {loss:.3f}", flush=True)
    if step % 100 == 0 or step == args.steps:
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state["stream"] = stream.state_dict(step - saved["step"])  # workers are ahead: this many batches were taken
        torch.save(state, f"{args.out}.new")
        os.replace(f"{args.out}.new", args.out)
