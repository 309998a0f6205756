"""Where a device's time goes in the program's own steps: steps for check.py. Each returns a dictionary."""

import csv
import io
import shutil
import statistics
import subprocess

from program import sets
from runner import whole


def command_of(check, preset, batch):
    settings = [f"model.preset={preset}", "train.precision=bf16", f"train.batch_size={batch}"]
    return check.command("bench", "train", *sets(*settings), "--steps", 10, "--dropout")


def profile(check, preset, batch):
    """Kernels by time, where Nsight Systems is; else how much of the time any kernel ran, as the driver samples it."""
    command = command_of(check, preset, batch)
    if shutil.which("nsys"):
        return by_nsys(check, command)
    if shutil.which("nvidia-smi"):
        return by_nvidia_smi(check, command)
    return {"profile": "neither nsys nor nvidia-smi is here"}


def by_nsys(check, command):
    report = check.out / "step"
    record = ["nsys", "profile", "--trace", "cuda", "--force-overwrite", "true", "--output", str(report), *command]
    subprocess.run(record, capture_output=True, timeout=check.left(), check=True, env=check.environment)
    ask = ["nsys", "stats", "--report", "cuda_gpu_kern_sum", "--format", "csv", "--force-export", "true", f"{report}.nsys-rep"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=check.left(), check=True)
    return kernels(done.stdout)


def kernels(text, most=8):
    """The kernels of a table of `nsys stats` that take longest, and their share of the time."""
    lines = text.splitlines()
    head = next((index for index, line in enumerate(lines) if line.startswith("Time (%)")), None)
    if head is None:
        raise RuntimeError("nsys has no table of kernels")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[head:]))))
    return {row["Name"][:60]: f"{row['Time (%)'].strip()} % in {row['Instances']}" for row in rows[:most]}


def by_nvidia_smi(check, command):
    watch = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
    sampler = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
    try:
        process = check.start(command, subprocess.DEVNULL)
        process.wait(timeout=check.left())
    finally:
        sampler.terminate()
        process.kill()
    if process.returncode != 0:
        raise RuntimeError(whole(process.reports).strip()[-200:])
    return utilisation(sampler.communicate()[0])


def utilisation(text):
    """Percentages, one a line; the run's beginning and end, where nothing is computed yet or any more, do not count."""
    samples = [int(line) for line in text.split() if line.isdigit()]
    busy = [index for index, sample in enumerate(samples) if sample > 0]
    if not busy:
        raise RuntimeError("no kernel ran")
    inner = samples[busy[0] : busy[-1] + 1]
    return {"GPU busy": f"{statistics.mean(inner):.0f} %", "samples": len(inner)}
