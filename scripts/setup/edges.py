#!/usr/bin/env python3
"""Checks the edges between the crates, as docs/src/architecture.md draws them, and which of them do without libtorch."""

import json
import re
import subprocess
import sys

ALLOWED = {
    "tokengrid-ingest": set(),
    "tokengrid-cache": set(),
    "tokengrid-model": set(),
    "tokengrid-tokenize": {"tokengrid-ingest", "tokengrid-cache", "tokengrid-model"},
    "tokengrid-train": {"tokengrid-ingest", "tokengrid-cache", "tokengrid-model"},
    "tokengrid-sample": {"tokengrid-cache", "tokengrid-model"},
    "tokengrid-eval": {"tokengrid-ingest", "tokengrid-model", "tokengrid-sample"},
    "tokengrid-view": {"tokengrid-ingest", "tokengrid-cache"},
}
WITHOUT_LIBTORCH = (
    ["--package", "tokengrid-ingest"],
    ["--package", "tokengrid-cache"],
    ["--package", "tokengrid-view"],
    ["--package", "tokengrid", "--no-default-features"],
)


def cargo(*arguments):
    result = subprocess.run(["cargo", *arguments], stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        sys.exit(f"edges: `cargo {' '.join(arguments)}` failed")
    return result.stdout.decode("utf-8")


def crate_edges():
    """crate -> crates of this workspace that it is built from (tests may use more)."""
    packages = json.loads(cargo("metadata", "--format-version", "1", "--no-deps"))["packages"]
    names = {package["name"] for package in packages}
    return {
        package["name"]: {
            dependency["name"]
            for dependency in package["dependencies"]
            if dependency["name"] in names and dependency["kind"] != "dev"
        }
        for package in packages
    }


def needs_libtorch(selection):
    tree = cargo("tree", *selection, "--edges", "normal,build", "--prefix", "none")
    return re.search(r"^torch-sys v", tree, re.MULTILINE) is not None


def problems():
    for crate, dependencies in crate_edges().items():
        for extra in sorted(dependencies - ALLOWED.get(crate, dependencies)):
            yield f"{crate} depends on {extra}: a new edge, which docs/src/architecture.md does not have"
    for selection in WITHOUT_LIBTORCH:
        if needs_libtorch(selection):
            yield f"`cargo tree {' '.join(selection)}` has torch-sys in it: it must build without libtorch"


def main():
    found = list(problems())
    for problem in found:
        print(f"edges: {problem}", file=sys.stderr)
    if not found:
        print("edges: as drawn; ingest, cache, view and --no-default-features do without libtorch")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
