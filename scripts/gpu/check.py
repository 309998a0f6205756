#!/usr/bin/env python3
"""Checks every stage on a GPU: results against the exact mode, rates, out-of-memory handling. Writes one JSON file and one table.

    python3 scripts/gpu/check.py OUT [--program tokengrid] [--device cuda] [--minutes 9] [--small]

Needs `data/photos` beside it and the program: of `make build`, or of the packages that `make wheel` makes, installed where PyTorch
2.11 is (`pip install --no-index --find-links dist tokengrid tokengrid-torch`; both together are 36 MB). No network. Each step has
its own limit; what a step that fails or takes too long had to say is in OUT/check.json, and the next one begins. Steps are in the
order of their importance, so that running out of time costs the least. `--small --device cpu` rehearses it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS = ROOT / "data/photos"
sys.path.insert(0, str(ROOT / "scripts/peers"))


class Check:
    def __init__(self, args):
        self.args, self.out = args, Path(args.out)
        self.ends = time.monotonic() + 60 * args.minutes
        self.steps = []
        self.out.mkdir(parents=True, exist_ok=True)

    def ask(self, *arguments, device=None):
        """Runs the program; returns its JSON output."""
        command = [self.args.program, *map(str, arguments), "--device", device or self.args.device, "--json", "--quiet"]
        left = min(self.limit, self.ends - time.monotonic())
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(left, 1))
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
        return json.loads(done.stdout)

    def step(self, name, limit, work):
        """Does `work`, which returns a dictionary, within `limit` seconds per command; writes all results so far."""
        self.limit, started = limit, time.monotonic()
        if started >= self.ends:
            result, problem = None, "no time was left"
        else:
            try:
                result, problem = work(), None
            except subprocess.TimeoutExpired:
                result, problem = None, "took too long"
            except Exception as error:  # whatever it is, the next step begins
                result, problem = None, f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - started, 1)
        self.steps.append({"step": name, "seconds": seconds, "result": result, "problem": problem})
        print(f"{name}: {problem or 'done'} ({seconds} s)", flush=True)
        (self.out / "check.json").write_text(json.dumps({"device": self.args.device, "steps": self.steps}, indent=1) + "\n")
        self.write_table()

    def write_table(self):
        lines = ["| step | result | seconds |", "|---|---|---|"]
        for step in self.steps:
            figures = "; ".join(f"{key} {value}" for key, value in (step["result"] or {}).items())
            lines.append(f"| {step['step']} | {step['problem'] or figures} | {step['seconds']} |")
        (self.out / "check.md").write_text("\n".join(lines) + "\n")


def rounded(number):
    return float(f"{number:.4g}")


def tokens(check, precision, small):
    """Tokens of photographs against the exact mode."""
    out = check.out / f"tokens-{precision}"
    limit = ["--limit", 6] if small else []
    made = check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 128, "--out", out, "--overwrite", "--batch-size", 32,
                     "--precision", precision, *limit)
    exact = check.out / "tokens-exact"
    if not exact.exists():
        check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 128, "--out", exact, *limit, device="cpu")
    drift = made["drift"] or {"bits": 0, "differing": 0, "outside_margin": 0}
    return {"rows": made["rows"], "same content hash": made["content_hash"] == json.loads((exact / "manifest.json").read_text())["content_hash"],
            "bits compared": drift["bits"], "differ": drift["differing"], "not near 0": drift["outside_margin"]}


def losses(check, precision, steps):
    """Losses of a short training, and their difference from the exact mode's."""
    def run(name, device, precision):
        out = check.out / f"run-{name}"
        settings = ["model.preset=tiny", "model.token_drop=0", "model.resid_dropout=0", "model.ffn_dropout=0",
                    f"train.max_steps={steps}", "train.log_every=1", f"train.precision={precision}"]
        sets = [word for setting in settings for word in ("--set", setting)]
        check.ask("train", "ar", "--cache", check.out / "tokens-exact", "--out", out, "--overwrite", *sets, device=device)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [row["train/loss"] for row in rows if "train/loss" in row]

    exact, ours = run("exact", "cpu", "fp32"), run(precision, check.args.device, precision)
    worst = max(abs(a - b) / b for a, b in zip(ours, exact, strict=True))
    return {"steps": len(ours), "first": rounded(ours[0]), "last": rounded(ours[-1]), "largest relative difference": rounded(worst)}


def encode(check, precision, batch, weights):
    figures = check.ask("bench", "encode", *weights, "--precision", precision, "--batch-size", batch, "--rounds", 2)
    return {"images/s": rounded(figures["images_per_second"]), "of libtorch": rounded(figures["of_libtorch"])}


def pytorch_encode(check, batch):
    """The same network in PyTorch: eager fp32, and bf16 by autocast."""
    import torch
    from encode import encoder, view

    device = torch.device(check.args.device)
    model, images = encoder().to(device), view(256).to(device).expand(batch, -1, -1, -1).contiguous()
    result = {}
    with torch.no_grad():
        for name, half in (("fp32", False), ("bf16 autocast", True)):
            took = []
            for _ in range(4):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    model(images).float().sum().item()
                took.append(time.perf_counter() - start)
            result[f"images/s {name}"] = rounded(batch / sorted(took[1:])[1])
    return result


def train(check, preset, precision, batch):
    settings = [f"model.preset={preset}", f"train.precision={precision}", f"train.batch_size={batch}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    figures = check.ask("bench", "train", *sets, "--steps", 5, "--dropout")
    (steps,) = figures["steps"].values()
    tokens_per_second = steps["tokens_per_second"]
    return {"tokens/s": rounded(tokens_per_second), "TFLOP/s, 6 per parameter": rounded(6e-12 * figures["parameters"] * tokens_per_second)}


def sample(check, preset, precision, batch):
    figures = check.ask("bench", "sample", "--set", f"model.preset={preset}", "--precision", precision, "--batch-size", batch, "--rounds", 1)
    return {"images/s": rounded(figures["batches"][0]["images_per_second"])}


def out_of_memory(check):
    """A batch that does not fit into memory is encoded in smaller calls."""
    out = check.out / "tokens-large"
    made = check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 512, "--views", "random-crop:32", "--batch-size", 4096,
                     "--out", out, "--overwrite")
    return {"rows": made["rows"], "images/s": rounded(made["images_per_second"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder for the results")
    parser.add_argument("--program", default="tokengrid")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--small", action="store_true", help="smallest sizes, for a test run")
    args = parser.parse_args()
    check, small = Check(args), args.small

    def device():
        if args.device == "cpu":
            return {"processors": os.cpu_count()}
        import torch

        return {"name": torch.cuda.get_device_name(0), "torch": torch.__version__, "CUDA": torch.version.cuda}

    precisions = ["fp32"] if small else ["fp32", "tf32", "bf16", "fp16"]
    check.step("device", 60, device)
    for precision in precisions:
        check.step(f"tokens, {precision}", 60, lambda precision=precision: tokens(check, precision, small))
    for precision in precisions:
        check.step(f"losses, {precision}", 60, lambda precision=precision: losses(check, precision, 2 if small else 10))
    weights = ["--tokenizer", "tiny", "--size", 64] if small else []
    for precision, batch in [("fp32", 2)] if small else [("bf16", 64), ("bf16", 16), ("fp16", 64), ("fp32", 16)]:
        check.step(f"encoder, {precision}, batch {batch}", 60, lambda p=precision, b=batch: encode(check, p, b, weights))
    if not small:
        check.step("encoder in PyTorch, batch 64", 60, lambda: pytorch_encode(check, 64))
    for preset, precision, batch in [("tiny", "fp32", 2)] if small else [("B", "bf16", 16), ("L", "bf16", 8), ("B", "fp32", 8)]:
        check.step(f"training step, {preset}, {precision}, batch {batch}", 60, lambda a=(preset, precision, batch): train(check, *a))
    for preset, precision, batch in [("tiny", "fp32", 2)] if small else [("B", "bf16", 32), ("XL", "bf16", 32)]:
        check.step(f"sampling, {preset}, {precision}, batch {batch}", 90, lambda a=(preset, precision, batch): sample(check, *a))
    if not small:
        check.step("memory that runs out", 90, lambda: out_of_memory(check))
    failed = [step["step"] for step in check.steps if step["problem"]]
    print((check.out / "check.md").read_text(), end="")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
