#!/usr/bin/env python3
"""A training step of the autoregressive model: ours beside the same model in PyTorch eager.

    python3 scripts/peers/train.py [--dim 384 --heads 6 --spatial 6 --factorized 2 --batch 8] [--threads 2]

The PyTorch model is the published architecture as it is usually written: length-2 sequences through the same blocks as the
long ones, one tensor a parameter, torch's AdamW. Both have fp32, dropout at the same rate (`--dropout`; the recipe has 0.1),
the same shapes and synthetic tokens, and a loss at the start of ln 64 + ln 4096, since the heads start at zero. Contestants
take turns; each figure is tokens per second of a round.
"""

import math
import time

from common import Rounds, arguments, inside, model_arguments, model_settings, record, report_of

PACKAGES = {"torch": "torch==2.11.0", "numpy": "numpy"}
CLASSES, BITS, BLOCK = 1000, (6, 12), 256


def build(args):
    """The model in PyTorch: class and tokens [B, N] in, both losses out."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Norm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            wide = x.float()
            return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight

    def dropped(x):
        return functional.dropout(x, args.dropout) if args.dropout > 0 else x

    def linear(inner, outer):
        return nn.Linear(inner, outer, bias=False)

    def rotated(x, table):
        real, imaginary = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
        cos, sin = table[None, :, None].unbind(-1)
        turned = torch.stack([real * cos - imaginary * sin, imaginary * cos + real * sin], -1)
        return turned.flatten(-2).type_as(x)

    class Block(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            hidden = -(-int(8 * dim / 3) // 256) * 256
            self.heads = heads
            self.attention_norm, self.ffn_norm = Norm(dim), Norm(dim)
            self.wqkv, self.wo = linear(dim, 3 * dim), linear(dim, dim)
            self.w1, self.w2, self.w3 = linear(dim, hidden), linear(hidden, dim), linear(dim, hidden)

        def forward(self, x, table):
            batch, length, dim = x.shape
            parts = self.wqkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
            q, k, v = rotated(parts[:, :, 0], table), rotated(parts[:, :, 1], table), parts[:, :, 2]
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + dropped(self.wo(y.transpose(1, 2).reshape(batch, length, dim)))
            n = self.ffn_norm(x)
            return x + dropped(self.w2(functional.silu(self.w1(n)) * self.w3(n)))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            dim, heads = args.dim, args.heads
            self.pre, self.post = (nn.Embedding(1 << bits, dim) for bits in BITS)
            self.classes = nn.Embedding(CLASSES + 1, dim)
            self.spatial = nn.ModuleList(Block(dim, heads) for _ in range(args.spatial))
            self.factorized = nn.ModuleList(Block(dim, heads) for _ in range(args.factorized))
            self.norm = Norm(dim)
            self.heads = nn.ModuleList(linear(dim, 1 << bits) for bits in BITS)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)
            for head in self.heads:
                nn.init.zeros_(head.weight)
            self.register_buffer("table", table(math.isqrt(BLOCK), dim // heads))

        def forward(self, pre, post, label):
            tokens = self.pre(pre[:, :-1]) + self.post(post[:, :-1])
            x = dropped(torch.cat([self.classes(label)[:, None], tokens], 1))
            for block in self.spatial:
                x = block(x, self.table[: x.shape[1]])
            batch, length, dim = x.shape
            y = torch.stack([x, self.pre(pre)], 2).view(batch * length, 2, dim)
            for block in self.factorized:
                y = block(y, self.table[:2])
            y = self.norm(y).view(batch, length, 2, dim)
            losses = [
                functional.cross_entropy(head(y[:, :, part]).flatten(0, 1), target.flatten())
                for part, (head, target) in enumerate(zip(self.heads, (pre, post)))
            ]
            return sum(losses)

    def table(side, head_dim):
        frequency = 10000.0 ** -(torch.arange(head_dim // 4) * 2.0 / (head_dim // 2))
        angle = torch.outer(torch.arange(side).float(), frequency)
        rows, columns = angle[:, None].expand(-1, side, -1), angle[None].expand(side, -1, -1)
        angle = torch.cat([rows, columns], -1).reshape(side * side, -1)
        return torch.cat([torch.zeros(1, head_dim // 2, 2), torch.stack([angle.cos(), angle.sin()], -1)])

    return Model()


def eager(args):
    """One step in PyTorch eager; tokens per second."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = build(args)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.05}]
    optimizer = torch.optim.AdamW(groups, 1e-4, betas=(0.9, 0.95))
    pre, post = (torch.randint(0, 1 << bits, (args.batch, BLOCK)) for bits in BITS)
    label = torch.randint(0, CLASSES, (args.batch,))

    def step():
        loss = model(pre, post, label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    first = step()
    expected = math.log(1 << BITS[0]) + math.log(1 << BITS[1])
    assert abs(first - expected) < 1e-3, (first, expected)

    def timed():
        start = time.perf_counter()
        for _ in range(args.steps):
            step()
        return args.steps * args.batch * BLOCK / (time.perf_counter() - start)

    return timed


def ours(args, found):
    """`bench train` on the same shapes; tokens per second."""
    rates = ("token_drop", "resid_dropout", "ffn_dropout")
    settings = [word for rate in rates for word in ("--set", f"model.{rate}={args.dropout}")]
    settings += ["--set", f"train.batch_size={args.batch}", *model_settings(args)]
    command = [args.program, "bench", "train", "--device", "cpu", "--threads", args.threads, "--steps", args.steps]
    command += ["--dropout", "--json", *settings]

    def timed():
        report = report_of(command)
        found.update(parameters=report["parameters"])
        step = report["steps"]["synthetic tokens"]
        expected = math.log(1 << BITS[0]) + math.log(1 << BITS[1])
        assert abs(sum(step["losses"][0]) - expected) < 1e-3, step["losses"][0]
        return step["tokens_per_second"]

    return timed


def main():
    parser = arguments(__doc__.splitlines()[0])
    model_arguments(parser, steps=3)
    parser.add_argument("--dropout", type=float, default=0.0, help="the recipe's is 0.1 after every branch")
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    found = {}
    figures = Rounds({"tokengrid": ours(args, found), "PyTorch eager": eager(args)}, args.rounds).run()
    record(args, "tokens per second", figures, "tokengrid", [f"{found['parameters']} parameters, {args.threads} threads"])


if __name__ == "__main__":
    main()
