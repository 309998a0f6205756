"""Runs the steps of a check one after the other, each within its own limit, and writes all results so far after each."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path


class Check:
    """`args`: see check.py."""

    def __init__(self, args):
        self.args, self.out = args, Path(args.out)
        self.ends = time.monotonic() + 60 * args.minutes
        self.steps = []
        self.limit = 60
        self.out.mkdir(parents=True, exist_ok=True)
        self.environment = dict(os.environ)
        if libraries := torch_libraries():
            # The program was linked with the libtorch of another machine: here it is PyTorch's.
            known = self.environment.get("LD_LIBRARY_PATH")
            self.environment["LD_LIBRARY_PATH"] = f"{libraries}:{known}" if known else libraries

    def left(self):
        """Seconds for a command."""
        return max(min(self.limit, self.ends - time.monotonic()), 1)

    def command(self, *arguments, device=None):
        """A command of the program, on the device that is checked or on another."""
        return [self.args.program, *map(str, arguments), "--device", device or self.args.device, "--json", "--quiet"]

    def start(self, command, stdout, **variables):
        """Starts a command; what it reports goes beside its output."""
        stderr = tempfile.TemporaryFile()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**self.environment, **variables})
        process.reports = stderr
        return process

    def ask(self, *arguments, exact=False):
        """Runs the program, on the CPU in its own way where the exact mode is wanted; what it answers as JSON."""
        device, variables = ("cpu", {"TOKENGRID_ROUTE": "host"}) if exact else (None, {})
        (answer,) = self.ask_all([self.command(*arguments, device=device)], [variables])
        return answer

    def ask_all(self, commands, variables):
        """Runs several processes at once, each with variables of its own; what they answer as JSON, None where nothing."""
        outputs = [tempfile.TemporaryFile() for _ in commands]
        processes = [self.start(command, output, **more) for command, output, more in zip(commands, outputs, variables)]
        try:
            for process in processes:
                process.wait(timeout=self.left())
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for process in processes:
            if process.returncode != 0:
                raise RuntimeError(last_line(process.reports) or f"exit {process.returncode}")
        return [json.loads(text) if (text := whole(output).strip()) else None for output in outputs]

    def refusal(self, *arguments):
        """Runs the program, which is to fail; its exit code, and its last line."""
        process = self.start(self.command(*arguments), subprocess.DEVNULL)
        try:
            process.wait(timeout=self.left())
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            raise RuntimeError("it did not fail")
        return process.returncode, last_line(process.reports)

    def step(self, name, limit, work):
        """Does `work`, which returns a dictionary, within `limit` seconds a command; writes all results so far."""
        # What is rehearsed runs on a machine that is busy with other things.
        self.limit, started = limit * (10 if self.args.small else 1), time.monotonic()
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
            text = (step["problem"] or figures).replace("|", "/").replace("\n", " ")
            lines.append(f"| {step['step']} | {text} | {step['seconds']} |")
        (self.out / "check.md").write_text("\n".join(lines) + "\n")


def whole(file):
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def last_line(file):
    lines = whole(file).strip().splitlines()
    return lines[-1] if lines else ""


def rounded(number):
    return float(f"{number:.4g}")


def has_torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def torch_libraries():
    """Where PyTorch has its libraries, if it is there."""
    if not has_torch():
        return None
    import torch

    return str(Path(torch.__file__).parent / "lib")
