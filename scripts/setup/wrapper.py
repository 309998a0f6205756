"""Compiles the C++ half of torch-sys once.

Its build script does the same, but again for every profile and target folder, unoptimised or with 100 MB of debug
information, one file after the other: minutes each time. .cargo/config.toml names our library in its place
(https://doc.rust-lang.org/cargo/reference/build-scripts.html#overriding-build-scripts).
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

from messages import SetupError, say

SOURCES = ("torch_api.cpp", "torch_api_generated.cpp")
# As in torch-sys's build.rs, but without -g.
FLAGS = ["-O2", "-w", "-fPIC", "-ffunction-sections", "-fdata-sections", "-std=c++17"]
FLAGS += ["-D_GLIBCXX_USE_CXX11_ABI=1", "-DGLOG_USE_GLOG_EXPORT"]
COMPILER_MEMORY_BYTES = 2_200_000_000
TELL_EVERY_SECS = 15


def torch_sys_version(repository):
    """The version in Cargo.lock; None if no crate depends on torch-sys."""
    try:
        with open(os.path.join(repository, "Cargo.lock"), encoding="utf-8") as file:
            found = re.search(r'name = "torch-sys"\nversion = "([^"]+)"', file.read())
    except FileNotFoundError:
        return None
    return found.group(1) if found else None


def folder_name(version, libtorch, compiler):
    """The name of the library's folder, with a hash of everything that the library depends on."""
    described = subprocess.run(compiler + ["-dumpfullversion", "-dumpmachine"], stdout=subprocess.PIPE, check=False).stdout
    ingredients = [version, libtorch.include_root, libtorch.version, described.decode("utf-8", "replace"), *compiler, *FLAGS]
    key = hashlib.sha256("\n".join(ingredients).encode("utf-8")).hexdigest()[:12]
    return f"torch-sys-{version}-{key}"


def build(folder, repository, version, libtorch, compiler):
    """Builds libtch.a in `folder`, which appears only when it is complete."""
    sources = torch_sys_folder(repository, version)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=".tmp-", dir=os.path.dirname(folder))
    try:
        objects = compile_all(sources, scratch, libtorch, compiler)
        library = os.path.join(scratch, "libtch.a")
        check_call(["ar", "crs", library] + objects, "archiving torch-sys's C++ objects failed")
        for path in objects:
            os.remove(path)
        os.chmod(scratch, 0o755)
        os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def torch_sys_folder(repository, version):
    """The folder of torch-sys's sources, which cargo downloads if necessary."""
    if not shutil.which("cargo"):
        raise SetupError("cargo is missing: install the Rust toolchain from https://rustup.rs")
    command = ["cargo", "metadata", "--format-version", "1"]
    result = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        raise SetupError("`cargo metadata` failed (see above)")
    for package in json.loads(result.stdout)["packages"]:
        if package["name"] == "torch-sys" and package["version"] == version:
            return os.path.join(os.path.dirname(package["manifest_path"]), "libtch")
    raise SetupError(
        f"`cargo metadata` does not know torch-sys {version}, which Cargo.lock names: run `cargo update -p torch-sys`"
    )


def compile_all(sources, scratch, libtorch, compiler):
    include = os.path.join(libtorch.include_root, "include")
    includes = ["-I", include, "-I", os.path.join(include, "torch", "csrc", "api", "include")]
    jobs = [
        (compiler + FLAGS + includes + ["-c", name, "-o", os.path.join(scratch, name + ".o")]) for name in SOURCES
    ]
    say("compiling torch-sys's C++ (once; one to three minutes)")
    for batch in [jobs] if may_run_in_parallel() else [[job] for job in jobs]:
        run_together(batch, sources)
    return [os.path.join(scratch, name + ".o") for name in SOURCES]


def may_run_in_parallel():
    jobs = os.environ.get("CARGO_BUILD_JOBS", "")
    cores = len(os.sched_getaffinity(0))
    return cores > 1 and jobs != "1" and available_memory_bytes() > len(SOURCES) * COMPILER_MEMORY_BYTES


def available_memory_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    return int(found.group(1)) * 1024 if found else 0


def run_together(commands, folder):
    started = time.monotonic()
    processes = [subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL) for command in commands]
    try:
        for process in processes:
            while process.poll() is None:
                try:
                    process.wait(TELL_EVERY_SECS)
                except subprocess.TimeoutExpired:
                    say(f"still compiling, {time.monotonic() - started:.0f} s")
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
    failed = [process for process in processes if process.returncode != 0]
    if failed:
        code = failed[0].returncode
        cause = "see the compiler's messages above"
        if code < 0:
            cause = "the compiler was killed: too little memory? It needs 2 GB"
        raise SetupError(f"compiling torch-sys's C++ failed ({cause})")


def check_call(command, failure):
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{failure}: {error}") from error
