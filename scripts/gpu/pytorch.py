"""The same models in PyTorch, of scripts/peers, on the same device: steps for check.py. Each returns a dictionary."""

import argparse
import contextlib
import sys
import time

from program import ROOT, model
from runner import rounded

sys.path.insert(0, str(ROOT / "scripts/peers"))


def synchronize(device):
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


@contextlib.contextmanager
def placed(check, half):
    """What is made inside lies on the device, and products are bf16 if `half`."""
    import torch

    device = torch.device(check.args.device)
    with torch.device(device), torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield device


def sizes(check, preset, batch):
    """A preset as the flags of scripts/peers; the recipe's dropout."""
    of = model(check, preset)
    # On a CPU that others use as well, threads wait for one another more than they compute.
    return argparse.Namespace(dim=of["dim"], heads=of["n_head"], spatial=of["spatial_n_layer"], factorized=of["factorized_n_layer"],
                              batch=batch, dropout=of["resid_dropout"], steps=1 if check.args.small else 5, scale=2.0, threads=1)


def encode(check, batch):
    """The encoder: eager fp32, and bf16 by autocast."""
    import torch
    from encode import encoder, view

    device = torch.device(check.args.device)
    network, images = encoder().to(device), view(256).to(device).expand(batch, -1, -1, -1).contiguous()
    result = {}
    with torch.no_grad():
        for name, half in (("fp32", False), ("bf16 autocast", True)):
            took = []
            for _ in range(4):
                synchronize(device)
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    network(images).float().sum().item()
                took.append(time.perf_counter() - start)
            result[f"images/s {name}"] = rounded(batch / sorted(took[1:])[1])
    return result


def train(check, preset, batch, half):
    """Training steps in eager mode; the second round counts."""
    import train as peer

    args = sizes(check, preset, batch)
    with placed(check, half):
        timed = peer.eager(args)
        timed()
        return {"tokens/s": rounded(timed()), "parameters": parameters(peer.build(args))}


def sample(check, preset, batch, half):
    """Sampling in eager mode, without the waste of the reference's algorithm; the second batch counts."""
    import sample as peer
    import torch

    args = sizes(check, preset, batch)
    with placed(check, half) as device, torch.no_grad():
        sampled, label = peer.sampler(args, lean=True), torch.arange(batch) % peer.CLASSES
        for _ in range(2):
            synchronize(device)
            start = time.perf_counter()
            sampled(label)
            synchronize(device)
            seconds = time.perf_counter() - start
        return {"images/s": rounded(batch / seconds), "parameters": parameters(peer.build(args))}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def profile(check, preset, batch):
    """A training step under PyTorch's profiler: what takes longest."""
    import train as peer
    from torch import profiler

    args = sizes(check, preset, batch)
    args.steps = 1
    with placed(check, half=check.args.device != "cpu"):
        timed = peer.eager(args)
        with profiler.profile() as profile:
            timed()
    events = sorted(profile.key_averages(), key=own_time, reverse=True)
    whole = sum(map(own_time, events)) or 1
    return {event.key[:60]: f"{100 * own_time(event) / whole:.1f} %" for event in events[:6]}


def own_time(event):
    """Microseconds of the device, or of the processor where there is none."""
    return getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total
