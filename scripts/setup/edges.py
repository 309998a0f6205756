#!/usr/bin/env python3
"""Checks the edges between the crates, as docs/src/architecture.md draws them, and which of them do without libtorch, and that the
tracked files stay small, and that one file alone asks libtorch about CUDA.

An edge is a dependency in a Cargo.toml, and a file of another crate that sources take in: `include_bytes!`, `include_str!`,
`include!` and `#[path]`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ALLOWED = {
    "tokengrid-store": set(),
    "tokengrid-ingest": {"tokengrid-store"},
    "tokengrid-cache": {"tokengrid-store"},
    "tokengrid-model": set(),
    "tokengrid-tokenize": {"tokengrid-ingest", "tokengrid-cache", "tokengrid-model"},
    "tokengrid-train": {"tokengrid-ingest", "tokengrid-cache", "tokengrid-model", "tokengrid-store"},
    "tokengrid-sample": {"tokengrid-cache", "tokengrid-model"},
    "tokengrid-eval": {"tokengrid-ingest", "tokengrid-model", "tokengrid-sample"},
    "tokengrid-python": {"tokengrid-cache", "tokengrid-store"},
    "tokengrid-view": {"tokengrid-ingest", "tokengrid-cache"},
}
# Limit in bytes of all tracked files, weights and pictures included: every clone downloads them.
TREE_BYTES_MAX = 20_000_000
WITHOUT_LIBTORCH = (
    ["--package", "tokengrid-store"],
    ["--package", "tokengrid-ingest"],
    ["--package", "tokengrid-cache"],
    ["--package", "tokengrid-view"],
    ["--package", "tokengrid-python"],
    ["--package", "tokengrid", "--no-default-features"],
)
# A file beside the source, or below the folder of its crate.
INCLUDED = re.compile(
    r"""(?: include(?:_bytes|_str)? ! \s* [(\[{] \s* | \# \s* \[ \s* path \s* = \s* )
        (?P<of_crate> concat! \s* \( \s* env! \s* \( \s* "CARGO_MANIFEST_DIR" \s* \) \s* , \s* )?
        "(?P<path> [^"]+ )" """,
    re.VERBOSE,
)

# libtorch takes CUDA for absent for good when it is asked before its CUDA library is loaded: who asks has loaded it.
ASKS_ABOUT_CUDA = Path("model/src/cuda.rs")
CUDA_OF_TCH = re.compile(r"\btch\s*::\s*(?:Cuda\b|\{[^}]*\bCuda\b)")


def cargo(*arguments):
    result = subprocess.run(["cargo", *arguments], stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        sys.exit(f"edges: `cargo {' '.join(arguments)}` failed")
    return result.stdout.decode("utf-8")


def workspace():
    return json.loads(cargo("metadata", "--format-version", "1", "--no-deps"))["packages"]


def crate_edges(packages):
    """crate -> crates of this workspace that it is built from (tests may use more)."""
    names = {package["name"] for package in packages}
    return {
        package["name"]: {
            dependency["name"]
            for dependency in package["dependencies"]
            if dependency["name"] in names and dependency["kind"] != "dev"
        }
        for package in packages
    }


def included_files(source, crate):
    """The files that a source includes."""
    for match in INCLUDED.finditer(source.read_text(encoding="utf-8")):
        if match["of_crate"]:
            yield (crate / match["path"].lstrip("/")).resolve()
        else:
            yield (source.parent / match["path"]).resolve()


def included_edges(folders):
    """(source, crate, file, the crate that the file belongs to) of each file from another crate. `folders`: crate -> folder."""
    for name, folder in folders.items():
        sources = sorted((folder / "src").rglob("*.rs")) + [folder / "build.rs"]
        for source in filter(Path.is_file, sources):
            for file in included_files(source, folder):
                # The innermost: the command's folder holds all others.
                owners = [other for other in folders if file.is_relative_to(folders[other])]
                owner = max(owners, key=lambda other: len(folders[other].parts), default=None)
                if owner != name:
                    yield source, name, file, owner


def asks_about_cuda(root):
    """Files below `root` that name `tch::Cuda` in other lines than comments, but for the one that may."""
    sources = (source for source in sorted(root.rglob("*.rs")) if "target" not in source.relative_to(root).parts)
    for source in sources:
        lines = source.read_text(encoding="utf-8").splitlines()
        code = "\n".join(line for line in lines if not line.lstrip().startswith("//"))
        if source.relative_to(root) != ASKS_ABOUT_CUDA and CUDA_OF_TCH.search(code):
            yield source.relative_to(root)


def tracked_bytes():
    """Bytes of the files under version control; 0 where there is no version control."""
    result = subprocess.run(["git", "ls-files", "-z"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    names = result.stdout.decode("utf-8").split("\0")
    return sum(os.lstat(name).st_size for name in names if os.path.lexists(name))


def problems():
    size = tracked_bytes()
    if size > TREE_BYTES_MAX:
        yield f"the tracked files have {size:,} bytes, more than {TREE_BYTES_MAX:,}: scripts/pack_golden.py packs goldens"
    packages = workspace()
    for crate, dependencies in crate_edges(packages).items():
        for extra in sorted(dependencies - ALLOWED.get(crate, dependencies)):
            yield f"{crate} depends on {extra}: a new edge, which docs/src/architecture.md does not have"
    folders = {package["name"]: Path(package["manifest_path"]).resolve().parent for package in packages}
    for source, crate, file, owner in included_edges(folders):
        if crate in ALLOWED and owner not in ALLOWED[crate]:
            yield f"{source} includes {file} of {owner or 'nobody'}, which {crate} does not depend on"
    for source in asks_about_cuda(folders["tokengrid"]):
        yield f"{source} names `tch::Cuda`: {ASKS_ABOUT_CUDA} asks, once libtorch's CUDA library is loaded"
    for selection in WITHOUT_LIBTORCH:
        if needs_libtorch(selection):
            yield f"`cargo tree {' '.join(selection)}` has torch-sys in it: it must build without libtorch"


def needs_libtorch(selection):
    tree = cargo("tree", *selection, "--edges", "normal,build", "--prefix", "none")
    return re.search(r"^torch-sys v", tree, re.MULTILINE) is not None


def main():
    found = list(problems())
    for problem in found:
        print(f"edges: {problem}", file=sys.stderr)
    if not found:
        print("edges: as documented; store, ingest, cache, view, python and --no-default-features do without libtorch; only one file calls tch::Cuda; tracked files below 20 MB")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
