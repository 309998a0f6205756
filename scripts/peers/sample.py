#!/usr/bin/env python3
"""Sampling from the autoregressive model: ours and the reference's algorithm in PyTorch eager.

    python3 scripts/peers/sample.py [--dim 384 --heads 6 --spatial 6 --factorized 2 --batch 8] [--scale 2.0] [--threads 2]

The algorithm is that of the reference's published code: the batch is doubled for guidance; one position at a time goes
through the spatial blocks with caches of keys and values; then a length-2 sequence goes through the factorized blocks, first
the low bits' element, then, as a second call, the high bits'. All caches have room for the whole sequence; those of the
factorized blocks are made anew for every token; every attention copies the whole cache (heads are repeated for grouped
queries, here once) and looks at all of it under a mask. Logits are guided, and a token is drawn by softmax and `multinomial`.
`--lean` measures a sampler beside it that does without this waste: caches of the factorized blocks hold 2 positions, and
attention reads the filled part only. All have fp32, the same shapes and random weights, and make token grids only.
Contestants take turns; each figure is images per second of a round.
"""

import time

from common import Rounds, arguments, inside, model_arguments, model_settings, record, report_of
from train import BITS, BLOCK, CLASSES, PACKAGES, build


def sampler(args, lean):
    """A function that samples a batch of token grids [B, N] in PyTorch eager."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = build(args).eval()
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=0.02)

    room = -(-(BLOCK + 1) // 8) * 8
    seen = torch.ones(room, room, dtype=torch.bool).tril().repeat(2 * args.batch, 1, 1)

    def caches(blocks, sequences, length):
        shape = (sequences, args.heads, length, args.dim // args.heads)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in blocks]

    def step(block, x, at, cache):
        """One position `x` [C, 1, D] through a block, with the keys and values before it."""
        sequences, _, dim = x.shape
        parts = block.wqkv(block.attention_norm(x)).view(sequences, 1, 3, args.heads, -1)
        row = model.table[at : at + 1]
        q, k = (turned(parts[:, :, i], row) for i in (0, 1))
        q, k, v = (t.transpose(1, 2) for t in (q, k, parts[:, :, 2]))
        keys, values = cache
        keys[:, :, at : at + 1], values[:, :, at : at + 1] = k, v
        if lean:
            y = functional.scaled_dot_product_attention(q, keys[:, :, : at + 1], values[:, :, : at + 1])
        else:
            keys, values = (t.repeat_interleave(1, dim=1) for t in cache)
            y = functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:sequences, None, at : at + 1])
        x = x + block.wo(y.transpose(1, 2).reshape(sequences, 1, dim))
        n = block.ffn_norm(x)
        return x + block.w2(functional.silu(block.w1(n)) * block.w3(n))

    def turned(x, row):
        real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        cos, sin = row[None, :, None].unbind(-1)
        return torch.stack([real * cos - imaginary * sin, imaginary * cos + real * sin], -1).flatten(-2)

    def draw(logits):
        cond, uncond = logits.chunk(2)
        probabilities = functional.softmax(uncond + (cond - uncond) * args.scale, -1)
        token = torch.multinomial(probabilities, 1)
        return torch.cat([token, token])

    @torch.no_grad()
    def sample(label):
        both = torch.cat([label, torch.full_like(label, CLASSES)])
        spatial = caches(model.spatial, len(both), room)
        x = model.classes(both)[:, None]
        tokens = []
        for at in range(BLOCK):
            for block, cache in zip(model.spatial, spatial):
                x = step(block, x, at, cache)
            intra = caches(model.factorized, len(both), 2 if lean else room)
            for element, head in enumerate(model.heads):
                y = x if element == 0 else model.pre(pre)
                for block, cache in zip(model.factorized, intra):
                    y = step(block, y, element, cache)
                drawn = draw(head(model.norm(y))[:, 0])
                if element == 0:
                    pre = drawn
            x = model.pre(pre) + model.post(drawn)
            tokens.append((pre + (drawn << BITS[0]))[: len(label), 0])
        return torch.stack(tokens, 1)

    return sample


def eager(args, lean=False):
    """Batches in PyTorch eager; images per second."""
    import torch

    sample = sampler(args, lean)
    label = torch.arange(args.batch) % CLASSES

    def timed():
        start = time.perf_counter()
        tokens = sample(label)
        seconds = time.perf_counter() - start
        assert tokens.shape == (args.batch, BLOCK) and int(tokens.max()) < 1 << sum(BITS)
        return args.batch / seconds

    return timed


def ours(args, found):
    """`bench sample` on the same shapes; images per second of the one measured round after its warm-up."""
    fixed = ["bench", "sample", "--device", "cpu", "--threads", args.threads, "--rounds", 1, "--json"]
    command = [args.program, *fixed, "--batch-size", args.batch, "--cfg-scale", args.scale, *model_settings(args)]

    def timed():
        report = report_of(command)
        found.update(parameters=report["parameters"])
        return report["batches"][0]["images_per_second"]

    return timed


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3)
    model_arguments(parser)
    parser.add_argument("--scale", type=float, default=2.0, help="guidance scale (default 2.0)")
    parser.add_argument("--lean", action="store_true", help="also a sampler in PyTorch without the reference's redundant work")
    args = parser.parse_args()
    inside(args.env, PACKAGES)
    found = {}
    contestants = {"tokengrid": ours(args, found), "the reference's algorithm": eager(args)}
    if args.lean:
        contestants["without its waste"] = eager(args, lean=True)
    figures = Rounds(contestants, args.rounds).run()
    notes = [f"{found['parameters']} parameters, {args.threads} threads, batches of {args.batch}, guidance {args.scale}"]
    record(args, "images per second", figures, "tokengrid", notes)


if __name__ == "__main__":
    main()
