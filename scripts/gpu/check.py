#!/usr/bin/env python3
"""What a GPU makes of every stage: results against the exact mode, rates beside PyTorch, memory that runs out, two processes on it,
a profile. One JSON file and one table.

    python3 scripts/gpu/check.py OUT [--program tokengrid] [--device cuda] [--minutes 9] [--small]

Needs PyTorch 2.11, and beside it what scripts/gpu/pack.py packs: the program, `data/photos`, scripts/gpu and scripts/peers. No
network. Each step has its own limit; what a step that fails or takes too long had to say is in OUT/check.json, and the next one
begins. Steps are in the order of their importance, so that running out of time costs the least. `--small --device cpu` rehearses
it.
"""

import argparse
import os
import sys

import profiling
import program
import pytorch
from runner import Check, has_torch


def device_of(args):
    if args.device == "cpu":
        return {"processors": os.cpu_count()}
    import torch

    return {"name": torch.cuda.get_device_name(0), "torch": torch.__version__, "CUDA": torch.version.cuda}


def steps(check):
    """Name, seconds that each of its commands may take, and work of each step."""
    small, on_cpu = check.args.small, check.args.device == "cpu"
    precisions = ["fp32"] if small else ["fp32", "tf32", "bf16", "fp16"]
    num_steps = 5 if small else 10
    weights = ["--tokenizer", "tiny", "--size", 64] if small else []
    yield "device", 60, lambda: device_of(check.args)
    for precision in precisions:
        yield f"tokens, {precision}", 60, lambda p=precision: program.tokens(check, p, small)
    for precision in precisions:
        yield f"losses, {precision}", 60, lambda p=precision: program.losses(check, p, num_steps)
    half = "fp32" if small else "bf16"
    yield f"losses with graphs, {half}", 60, lambda: program.losses(check, half, num_steps, "train.cuda_graph=true")
    for precision, batch in [("fp32", 2)] if small else [("bf16", 64), ("bf16", 16), ("fp16", 64), ("fp32", 16)]:
        yield f"encoder, {precision}, batch {batch}", 60, lambda p=precision, b=batch: program.encode(check, p, b, weights)
    if not small:
        yield "encoder in PyTorch, batch 64", 60, lambda: pytorch.encode(check, 64)
    compares = has_torch() or not on_cpu
    preset, batch = ("tiny", 2) if small else ("B", 16)
    yield f"training, {preset}, {half}, batch {batch}", 60, lambda: program.train(check, preset, half, batch)
    if compares:
        yield f"training in PyTorch, {preset}, batch {batch}", 60, lambda: pytorch.train(check, preset, batch, not small)
    yield f"training with graphs, {preset}, {half}, batch {batch}", 60, lambda: program.train(check, preset, half, batch, graph=True)
    for preset_, batch_ in [("tiny", 1)] if small else [("B", 32), ("XL", 32)]:
        of = (check, preset_, half, batch_)
        yield f"sampling, {preset_}, {half}, batch {batch_}", 90, lambda of=of: program.sample(*of)
        if compares:
            yield f"sampling in PyTorch, {preset_}, batch {batch_}", 90, lambda of=of: pytorch.sample(check, of[1], of[3], not small)
        yield f"sampling with graphs, {preset_}, {half}, batch {batch_}", 90, lambda of=of: program.sample(*of, graph=True)
    if not on_cpu:
        yield "memory that runs out in the encoder", 90, lambda: program.out_of_memory(check)
    # Of a CPU's memory a training that cannot fit is refused as well, before it begins.
    yield "memory that runs out in training", 60, lambda: program.refused_training(check, "XL", 1 << 20 if on_cpu else 2048)
    yield "memory that runs out in sampling", 60, lambda: program.refused_sampling(check, "tiny" if small else "XL", 65536)
    yield "two processes on one device, gloo", 60, lambda: program.two_processes(check, "gloo", num_steps)
    if not on_cpu:
        # NCCL refuses two processes on one GPU: the step shows in which words.
        yield "two processes on one device, nccl", 90, lambda: program.two_processes(check, "nccl", num_steps)
        yield "profile of a training step, B, batch 16", 90, lambda: profiling.profile(check, "B", 16)
    if compares:
        yield f"profile of a training step in PyTorch, {preset}, batch {batch}", 60, lambda: pytorch.profile(check, preset, batch)
    if not small:
        for preset_, precision, batch_ in [("L", "bf16", 8), ("B", "fp32", 8)]:
            of = (check, preset_, precision, batch_)
            yield f"training, {preset_}, {precision}, batch {batch_}", 60, lambda of=of: program.train(*of)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder for the results")
    packed = program.ROOT / "tokengrid"
    parser.add_argument("--program", default=str(packed) if packed.is_file() else "tokengrid")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--small", action="store_true", help="the smallest of everything, to rehearse")
    check = Check(parser.parse_args())
    for name, limit, work in steps(check):
        check.step(name, limit, work)
    failed = [step["step"] for step in check.steps if step["problem"]]
    print((check.out / "check.md").read_text(), end="")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
