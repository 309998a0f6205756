"""Properties of this machine: platform, compilers, assembler, GPU driver."""

import ctypes
import os
import platform
import shutil
import subprocess

from existing import LIBTORCH_SERIES, LIBTORCH_VERSION
from messages import SetupError, say

PROCESSORS = ("x86_64", "aarch64")
GLIBC_MIN = (2, 28)  # of the manylinux_2_28 wheel
CUDA_DRIVER_MIN = 13000  # as cuDriverGetVersion counts: 13.0
WITHOUT_LIBTORCH = "Without libtorch, only `ingest` and `cache` are available: cargo build --release --no-default-features"


def check_linux():
    if platform.system() != "Linux":
        raise SetupError(f"this script knows Linux only, not {platform.system()}.\n{WITHOUT_LIBTORCH}")


def check_platform():
    """The processor's name, if the pinned wheels run here."""
    processor = platform.machine()
    if processor not in PROCESSORS:
        raise SetupError(
            f"there is no ready-made libtorch {LIBTORCH_VERSION} for {processor}, only for "
            f"{' and '.join(PROCESSORS)}.\n"
            f"Point LIBTORCH to a libtorch {LIBTORCH_SERIES} of your own. {WITHOUT_LIBTORCH}"
        )
    libc = libc_version()
    if libc is None or libc < GLIBC_MIN:
        have = "another C library (musl?)" if libc is None else f"glibc {libc[0]}.{libc[1]}"
        raise SetupError(
            f"libtorch {LIBTORCH_VERSION} needs glibc {GLIBC_MIN[0]}.{GLIBC_MIN[1]} or newer (Debian 10, "
            f"Ubuntu 20.04); this system has {have}.\n{WITHOUT_LIBTORCH}"
        )
    return processor


def libc_version():
    """glibc's (major, minor); None with another C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else None
    except (ValueError, OSError):
        return None


def has_cuda():
    """Whether a GPU can be used, that is, whether a driver for CUDA 13 is installed."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 and 0 < version.value < CUDA_DRIVER_MIN:
        have, need = (f"{number // 1000}.{number % 1000 // 10}" for number in (version.value, CUDA_DRIVER_MIN))
        say(
            f"the NVIDIA driver supports CUDA {have}, libtorch needs {need}: setting up for the CPU. "
            "Update the driver (580 or newer) to use the GPU"
        )
        return False
    return True


def cxx_compiler():
    """The C++ compiler's command, installing g++ if that is possible."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    if apt_install("g++") and shutil.which("g++"):
        return ["g++"]
    raise SetupError("a C++ compiler is needed. On Debian or Ubuntu: sudo apt-get install g++")


def has_assembler(processor):
    """Whether the JPEG library gets its SIMD code. It builds without nasm too, but then decodes slowly."""
    if processor != "x86_64" or shutil.which("nasm"):
        return True
    if apt_install("nasm") and shutil.which("nasm"):
        return True
    say("nasm is missing: JPEG decoding will be slow. On Debian or Ubuntu: sudo apt-get install nasm, then run this again")
    return False


def may_use_apt(environment):
    wish = environment.get("TOKENGRID_APT") or "1"
    if wish not in ("0", "1"):
        raise SetupError(f"TOKENGRID_APT={wish}: expected 0 or 1")
    return wish == "1"


def apt_install(package):
    """Installs a Debian package if permitted: as root, unless TOKENGRID_APT=0 forbids it."""
    if not may_use_apt(os.environ) or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say(f"installing {package} (apt-get)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    # The package lists of a new container are empty or old: the second attempt updates them.
    for commands in ([install], [["apt-get", "update", "-q"], install]):
        if all(run_quietly(command, environment) for command in commands):
            return True
    return False


def run_quietly(command, environment):
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return result.returncode == 0


def forget_builds_without_nasm(repository):
    """Cargo does not notice that nasm was installed: make it rebuild the JPEG library."""
    for profile in ("dev", "release"):
        subprocess.run(
            ["cargo", "clean", "--quiet", "--package", "mozjpeg-sys", "--profile", profile],
            cwd=repository,
            stderr=subprocess.DEVNULL,
            check=False,
        )
