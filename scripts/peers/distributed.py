#!/usr/bin/env python3
"""Training in two processes on one machine: ours, and the same model in PyTorch DDP (gloo) under torchrun.

    python3 scripts/peers/distributed.py [--dim 384 --heads 6 --spatial 6 --factorized 2 --batch 8] [--threads 2]

Contestants take turns, each with the same cores and the same global batch of `--batch` sequences:

- `train ar` in one process with `--threads` threads,
- `train ar` in `--threads` processes with one thread each, under plain variables,
- the model of train.py in `DistributedDataParallel`, in as many processes with one thread each, under torchrun.

Each figure is tokens per second of all processes, the median over the steps after the first two. Then both sum 17.7 million
floats in buckets of 25 MB: `bench exchange` and `torch.distributed.all_reduce`. The share of a step that waits for the exchange is
what `train ar -v` says at its end.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Rounds, arguments, inside, model_arguments, model_settings, record, report_of
from train import BITS, BLOCK, CLASSES, build

PACKAGES = {"torch": "torch==2.11.0", "numpy": "numpy"}
ROWS = 4096
NUMBERS, BUCKET = 17_700_000, 25 << 20
RATES = ("token_drop", "resid_dropout", "ffn_dropout")
SKIPPED = 2


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def on_cores(count):
    """Restricts a process and its children to the same cores as all other processes of this comparison."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    return lambda: os.sched_setaffinity(0, cores)


def random_cache(args, folder):
    """A cache of random tokens in our format."""
    import numpy

    random = numpy.random.default_rng(0)
    numpy.save(folder / "tokens.npy", random.integers(0, 1 << sum(BITS), (ROWS, BLOCK), dtype=numpy.int32))
    numpy.save(folder / "labels.npy", random.integers(0, CLASSES, ROWS, dtype=numpy.int64))
    command = [args.program, "cache", "import", "--tokens", folder / "tokens.npy", "--labels", folder / "labels.npy"]
    command += ["--grid", "16x16", "--out", folder / "cache", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "cache"


def started(command, rank, world_size, port, cores):
    """One of our processes, under plain variables."""
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command)], env=environment, preexec_fn=on_cores(cores), **pipes)


def together(command, world_size, cores):
    """The stdout of rank 0 and the stderr of all, after all have ended."""
    port = free_port()
    processes = [started(command, rank, world_size, port, cores) for rank in range(world_size)]
    said = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, said):
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}: {errors}")
    return said[0][0], [errors for _, errors in said]


def ours(args, cache, world_size, waits):
    """`train ar` in several processes on the same cores; tokens per second."""
    settings = [word for rate in RATES for word in ("--set", f"model.{rate}={args.dropout}")]
    # A share for each process: the global batch is the same.
    train = {"batch_size": args.batch // world_size, "max_steps": args.steps + SKIPPED, "log_every": 1, "val_every": 0}
    settings += [word for key, value in train.items() for word in ("--set", f"train.{key}={value}")]

    def timed():
        with tempfile.TemporaryDirectory() as folder:
            command = [args.program, "train", "ar", "--cache", cache, "--out", f"{folder}/run", "--device", "cpu", "-v"]
            command += ["--threads", args.threads // world_size, *settings, *model_settings(args)]
            _, said = together(command, world_size, args.threads)
            rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        found = [re.search(r"waited [0-9.]+ s of [0-9.]+ s for exchanges \(([0-9.]+) %\)", text) for text in said]
        waits.extend(float(match[1]) for match in found if match)
        return statistics.median(row["tokens_per_second"] for row in rows[SKIPPED:])

    return timed


def torchrun(args, work):
    """This script's `work` in processes of one thread each, under torchrun; returns the output of rank 0."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", args.threads, "--master-addr", "127.0.0.1"]
    command += ["--master-port", free_port(), __file__, *sys.argv[1:], "--work", work]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    options = {"stdout": subprocess.PIPE, "text": True, "check": True, "env": environment}
    output = subprocess.run([*map(str, command)], preexec_fn=on_cores(args.threads), **options).stdout
    return json.loads(output.strip().splitlines()[-1])


def ddp(args):
    """One process of PyTorch's training: prints the median of tokens per second."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("gloo")
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(args)
    # As in train.py; both kinds decay.
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    parallel = DistributedDataParallel(model, bucket_cap_mb=25, gradient_as_bucket_view=True)
    torch.manual_seed(1 + rank)
    share = args.batch // world_size
    took = []
    for _ in range(args.steps + SKIPPED):
        pre, post = (torch.randint(0, 1 << bits, (share, BLOCK)) for bits in BITS)
        label = torch.randint(0, CLASSES, (share,))
        start = time.perf_counter()
        loss = parallel(pre, post, label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        took.append(time.perf_counter() - start)
    if rank == 0:
        print(json.dumps(args.batch * BLOCK / statistics.median(took[SKIPPED:])))
    distributed.destroy_process_group()


def sums(args):
    """One process of Python's gloo: prints the median of milliseconds per sum."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    buckets = torch.zeros(NUMBERS).split(BUCKET // 4)
    took = []
    for _ in range(args.sums + 1):
        for bucket in buckets:
            bucket.fill_(1.0)
        distributed.barrier()
        start = time.perf_counter()
        for work in [distributed.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()
        took.append(1e3 * (time.perf_counter() - start))
        assert all(bucket.eq(distributed.get_world_size()).all() for bucket in buckets)
    if distributed.get_rank() == 0:
        print(json.dumps(statistics.median(took[1:])))
    distributed.destroy_process_group()


def our_sums(args):
    """`bench exchange` in processes of one thread each; milliseconds per sum."""
    command = [args.program, "bench", "exchange", "--numbers", NUMBERS, "--bucket-bytes", BUCKET, "--rounds", args.sums]
    output, _ = together([*command, "--threads", 1, "--device", "cpu", "--json"], args.threads, args.threads)
    return json.loads(output)["milliseconds"]


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3)
    model_arguments(parser, steps=6, sums=10)
    parser.add_argument("--dropout", type=float, default=0.0, help="the recipe's is 0.1 after every branch")
    parser.add_argument("--work", choices=["ddp", "sums"], help="used by this script itself, under torchrun")
    args = parser.parse_args()
    if args.work:
        return {"ddp": ddp, "sums": sums}[args.work](args)
    if args.batch % args.threads:
        parser.error("--batch has to be a multiple of --threads")
    inside(args.env, PACKAGES)
    report_of([args.program, "bench", "exchange", "--numbers", 4, "--rounds", 1, "--device", "cpu", "--json"])
    many, waits = f"{args.threads} processes x 1 thread", []
    with tempfile.TemporaryDirectory() as folder:
        cache = random_cache(args, Path(folder))
        contestants = {
            f"tokengrid, {many}": ours(args, cache, args.threads, waits),
            f"tokengrid, 1 process x {args.threads} threads": ours(args, cache, 1, []),
            f"PyTorch DDP, {many}": lambda: torchrun(args, "ddp"),
        }
        figures = Rounds(contestants, args.rounds).run()
    ms = [(our_sums(args), torchrun(args, "sums")) for _ in range(args.rounds)]
    mine, theirs = (statistics.median(column) for column in zip(*ms))
    notes = [
        f"share of the time that waits for exchanges: {statistics.median(waits):.1f} % (median over processes and rounds)",
        f"sum of {NUMBERS} floats in buckets of 25 MB: tokengrid {mine:.1f} ms, Python's gloo {theirs:.1f} ms (medians)",
    ]
    record(args, "tokens per second", figures, f"tokengrid, {many}", notes)


if __name__ == "__main__":
    main()
