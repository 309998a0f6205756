"""What the program makes of every stage on a device: steps for check.py. Each returns a dictionary."""

import json
import re
import socket
import subprocess
from pathlib import Path

from runner import rounded

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS = ROOT / "data/photos"
NO_DROPOUT = ["model.token_drop=0", "model.resid_dropout=0", "model.ffn_dropout=0"]


def sets(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def model(check, preset):
    """The sizes of a preset."""
    command = [check.args.program, "train", "ar", *sets(f"model.preset={preset}"), "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=check.environment)
    section = done.stdout.split("[model]")[1].split("\n[")[0]
    return {key: float(value) if "." in value else int(value) for key, value in re.findall(r"^(\w+) = ([0-9.]+)$", section, re.MULTILINE)}


def exact_tokens(check, small):
    """The cache of the exact mode, made once."""
    exact = check.out / "tokens-exact"
    if not exact.exists():
        limit = ["--limit", 6] if small else []
        check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 128, "--out", exact, *limit, exact=True)
    return exact


def tokens(check, precision, small):
    """Tokens of photographs against the exact mode."""
    out, exact = check.out / f"tokens-{precision}", exact_tokens(check, small)
    limit = ["--limit", 6] if small else []
    made = check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 128, "--out", out, "--overwrite", "--batch-size", 32,
                     "--precision", precision, *limit)
    drift = made["drift"] or {"bits": 0, "differing": 0, "outside_margin": 0}
    return {"rows": made["rows"], "same content hash": made["content_hash"] == json.loads((exact / "manifest.json").read_text())["content_hash"],
            "bits compared": drift["bits"], "differ": drift["differing"], "not near 0": drift["outside_margin"]}


def training(check, name, steps, *settings):
    """Arguments of a short training, and a function that reads its losses."""
    out = check.out / f"run-{name}"
    fixed = ["model.preset=tiny", *NO_DROPOUT, f"train.max_steps={steps}", "train.log_every=1"]
    arguments = ["train", "ar", "--cache", check.out / "tokens-exact", "--out", out, "--overwrite", *sets(*fixed, *settings)]

    def losses():
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [row["train/loss"] for row in rows if "train/loss" in row]

    return arguments, losses


def difference(ours, exact):
    return rounded(max(abs(a - b) / b for a, b in zip(ours, exact, strict=True)))


def exact_losses(check, steps):
    """Losses in the exact mode, computed once."""
    arguments, losses = training(check, "exact", steps)
    if not (check.out / "run-exact/metrics.jsonl").exists():
        check.ask(*arguments, exact=True)
    return losses()


def losses(check, precision, steps, *settings):
    """Losses of a short training, and how far they are from the exact mode's."""
    exact = exact_losses(check, steps)
    arguments, read = training(check, "-".join([precision, *settings]), steps, f"train.precision={precision}", *settings)
    check.ask(*arguments)
    ours = read()
    return {"steps": len(ours), "first": rounded(ours[0]), "last": rounded(ours[-1]),
            "largest relative difference": difference(ours, exact)}


def two_processes(check, backend, steps):
    """Two processes on the one device, with half of the batch each: their losses are those of one."""
    exact = exact_losses(check, steps)
    arguments, read = training(check, f"two-{backend}", steps, "train.batch_size=4", "train.timeout_secs=60")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    device = "cuda:0" if check.args.device.startswith("cuda") else check.args.device
    of_rank = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "TOKENGRID_BACKEND": backend} for rank in range(2)]
    check.ask_all([check.command(*arguments, device=device)] * 2, of_rank)
    return {"steps": len(read()), "largest relative difference": difference(read(), exact)}


def encode(check, precision, batch, weights):
    figures = check.ask("bench", "encode", *weights, "--precision", precision, "--batch-size", batch, "--rounds", 2)
    return {"images/s": rounded(figures["images_per_second"]), "of libtorch": rounded(figures["of_libtorch"])}


def train(check, preset, precision, batch, graph=False):
    settings = [f"model.preset={preset}", f"train.precision={precision}", f"train.batch_size={batch}"]
    if graph:
        settings.append("train.cuda_graph=true")
    # The first steps of a graph are watched and captured: more of them, for a median of those that repeat.
    figures = check.ask("bench", "train", *sets(*settings), "--steps", 15 if graph else 5, "--dropout")
    (steps,) = figures["steps"].values()
    tokens_per_second = steps["tokens_per_second"]
    return {"tokens/s": rounded(tokens_per_second), "TFLOP/s, 6 per parameter": rounded(6e-12 * figures["parameters"] * tokens_per_second),
            "parameters": figures["parameters"], "last losses": [rounded(loss) for loss in steps["losses"][-1]]}


def sample(check, preset, precision, batch, graph=False):
    more = ["--cuda-graph"] if graph else []
    figures = check.ask("bench", "sample", *sets(f"model.preset={preset}"), "--precision", precision, "--batch-size", batch, "--rounds", 1, *more)
    return {"images/s": rounded(figures["batches"][0]["images_per_second"]), "parameters": figures["parameters"]}


def out_of_memory(check):
    """A batch that fits nowhere is encoded all the same, in smaller calls."""
    out = check.out / "tokens-large"
    made = check.ask("tokenize", PHOTOS, "--tokenizer", "tiny", "--size", 512, "--views", "random-crop:32", "--batch-size", 4096,
                     "--out", out, "--overwrite")
    return {"rows": made["rows"], "images/s": rounded(made["images_per_second"])}


def refused_training(check, preset, batch):
    """A training step that does not fit ends with a sentence that says what to lower, and no crash."""
    settings = [f"model.preset={preset}", "train.precision=bf16", f"train.batch_size={batch}"]
    return refused(*check.refusal("bench", "train", *sets(*settings), "--steps", 1), "train.batch_size")


def refused_sampling(check, preset, batch):
    """The same of a batch of samples, which is refused before it is begun."""
    arguments = [*sets(f"model.preset={preset}"), "--precision", "bf16", "--batch-size", batch, "--rounds", 1]
    return refused(*check.refusal("bench", "sample", *arguments), "--batch-size")


def refused(code, said, expected):
    # 1 where the device was asked, 2 where the configuration was refused before.
    if code not in (1, 2) or expected not in said:
        raise RuntimeError(f"exit {code}: {said}")
    return {"exit": code, "said": said}
