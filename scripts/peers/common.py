"""Shared by the comparisons with other programs: a separate environment, alternating rounds, a record."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def arguments(description, **defaults):
    """The flags of every comparison; the caller adds its own. `defaults` replace their default values."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements (default 5)")
    parser.add_argument("--env", type=Path, default=ROOT / "target/peers-env", help="virtual environment to make or use")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/tokengrid", help="the tokengrid program")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    parser.set_defaults(**defaults)
    return parser


def model_arguments(parser, **more):
    """The sizes of an autoregressive model, and other integer flags."""
    sizes = {"dim": 384, "heads": 6, "spatial": 6, "factorized": 2, "batch": 8, "threads": 2}
    for flag, default in {**sizes, **more}.items():
        parser.add_argument(f"--{flag}", type=int, default=default)


def model_settings(args):
    """The same sizes as `--set` arguments of our program."""
    keys = {"dim": args.dim, "n_head": args.heads, "spatial_n_layer": args.spatial, "factorized_n_layer": args.factorized}
    return [word for key, value in keys.items() for word in ("--set", f"model.{key}={value}")]


def report_of(command):
    """The JSON output of tokengrid."""
    return json.loads(subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout)


def inside(environment, packages):
    """Makes sure that this script runs in `environment` with the packages of {import name: requirement}.

    A package that cannot be installed is left out, and the comparison with it. Returns once inside.
    """
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    if Path(sys.prefix).resolve() != environment.resolve():
        for module, requirement in packages.items():
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0:
                continue
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirement.split()]
            if subprocess.run(install, check=False).returncode != 0:
                print(f"{requirement}: cannot be installed; left out", file=sys.stderr)
        os.execv(python, [str(python), *sys.argv])


class Rounds:
    """Measures several programs alternately: each round starts with a different one, so that none is always first."""

    def __init__(self, contestants, rounds):
        self.contestants = contestants
        self.rounds = rounds
        self.figures = {name: [] for name in contestants}

    def run(self):
        """Each contestant is a function that does its work and returns units per second of processor time."""
        names = list(self.contestants)
        for number in range(self.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self.figures[name].append(self.contestants[name]())
            print(f"round {number + 1} of {self.rounds}", file=sys.stderr)
        return self.figures


def per_cpu_second(count, work):
    """Runs `work`; `count` divided by the processor seconds that it took in this process."""
    start = time.process_time()
    work()
    return count / max(time.process_time() - start, 1e-9)


def working_peers(makers, folder, tokens, labels, num_rows_of):
    """Lets each peer write its data set into a subfolder of `folder`: (name, subfolder, contestant) of those that work.

    A maker returns a function that starts an epoch, and `num_rows_of` reads a whole epoch and returns its number of rows.
    """
    for name, make in makers.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        try:
            epoch = make(place, tokens, labels)
            count = num_rows_of(epoch)
        except Exception as error:  # a peer that fails must not stop the other peers
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        yield name, place, lambda epoch=epoch, count=count: per_cpu_second(count, lambda: num_rows_of(epoch))


def record(args, unit, figures, ours, notes=None):
    """Prints the table and writes the JSON file. Ratios are ours over theirs, round by round, then the median."""
    rows = {}
    for name, values in figures.items():
        ratios = [mine / other for mine, other in zip(figures[ours], values)]
        rows[name] = {
            "median": statistics.median(values),
            "rounds": values,
            "ours_over_this": statistics.median(ratios),
            "ratios": ratios,
        }
    width = max(map(len, rows))
    print(f"{'':{width}}  {unit:>28}  ours is faster by")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["median"]):
        print(f"{name:{width}}  {row['median']:28,.1f}  {row['ours_over_this']:.2f}")
    for note in notes or []:
        print(note)
    result = {"unit": unit, "ours": ours, "figures": rows, "notes": notes or [], "machine": machine(args.program)}
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def machine(program):
    """Processor, cores, load, and the versions of the measured programs."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    freeze = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=False).stdout
    return {
        "processor": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "program": version,
        "python": sys.version.split()[0],
        "packages": freeze.split(),
    }
