"""Finds a libtorch that is already on this machine and checks that it can be used."""

import contextlib
import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass

from messages import SetupError, say

LIBTORCH_VERSION = "2.11.0"
LIBTORCH_SERIES = "2.11"


@dataclass(frozen=True)
class Libtorch:
    """A libtorch that is ready for use: headers in `include_root`/include, libraries in `lib_root`/lib."""

    root: str
    include_root: str
    lib_root: str
    version: str
    origin: str

    @property
    def lib(self):
        return os.path.join(self.lib_root, "lib")


def from_environment(environment):
    """The LIBTORCH of the environment, None if it is not set. An unusable one is an error."""
    if not environment.get("LIBTORCH"):
        return None
    root = os.path.abspath(os.path.expanduser(environment["LIBTORCH"]))
    include_root = os.path.abspath(environment.get("LIBTORCH_INCLUDE") or root)
    lib_root = os.path.abspath(environment.get("LIBTORCH_LIB") or root)
    try:
        return usable(root, include_root, lib_root, "LIBTORCH")
    except SetupError as error:
        way_out = f"Point LIBTORCH to libtorch {LIBTORCH_SERIES}, or unset it and let setup provide one"
        raise SetupError(f"LIBTORCH={root}: {error}.\n{way_out}") from error


def from_config(text):
    """The libtorch that .cargo/config.toml names, None if it no longer exists.

    Staying with it matters: another place means other flags, and cargo would rebuild everything whenever a Python
    environment with PyTorch is activated or left.
    """
    entries = dict(re.findall(r'^(LIBTORCH\w*) = (".*")$', text or "", re.MULTILINE))
    try:
        roots = [json.loads(entries[name]) for name in ("LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB")]
        return usable(*roots, "as before")
    except (KeyError, ValueError, SetupError):
        return None


def from_python():
    """The PyTorch of this Python, without importing it. None if there is none or if it cannot be used."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    root = os.path.dirname(os.path.abspath(spec.origin))
    try:
        return usable(root, root, root, "your PyTorch")
    except SetupError as error:
        say(f"the PyTorch of {sys.executable} is not used: {error}")
        return None


def usable(root, include_root, lib_root, origin):
    """The libtorch in these folders, or a SetupError that says what is wrong with it."""
    needed = [os.path.join(lib_root, "lib", name) for name in ("libtorch_cpu.so", "libc10.so")]
    needed.append(os.path.join(include_root, "include/torch/csrc/api/include/torch/torch.h"))
    for path in needed:
        if not os.path.exists(path):
            raise SetupError(f"{path} is missing")
    version = version_of(root, include_root)
    if version is None or not re.match(re.escape(LIBTORCH_SERIES) + r"(\.|$)", version):
        raise SetupError(f"it is version {version or 'unknown'}, tokengrid needs {LIBTORCH_SERIES}")
    return Libtorch(root, include_root, lib_root, version, origin)


def version_of(root, include_root):
    """From `build-version` (libtorch), version.py (PyTorch) or the headers; None if none of them has it."""
    text = read(os.path.join(root, "build-version"))
    if text:
        return text.strip()
    found = re.search(r"^__version__\b[^=]*=\s*['\"]([^'\"]+)", read(os.path.join(root, "version.py")), re.MULTILINE)
    if found:
        return found.group(1)
    for name in ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"):
        text = read(os.path.join(include_root, "include", name))
        numbers = [re.search(rf"define TORCH_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
        if all(numbers):
            return ".".join(number.group(1) for number in numbers)
    return None


def read(path):
    """The file's text, empty if it cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open(path, encoding="utf-8") as file:
            return file.read()
    return ""
