"""The examples run, in small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tokengrid
from conftest import make_cache

pytest.importorskip("torch", reason="PyTorch is not installed")

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    # One thread: models of this size take no more, and so does what else runs.
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_train_ar_learns_and_resumes_to_the_same_losses(tmp_path):
    make_cache(tmp_path / "cache", bits=6)
    small = ("--dim", 32, "--heads", 2, "--layers", 2, "--batch", 16)
    whole = run("train_ar.py", tmp_path / "cache", *small, "--out", tmp_path / "whole.pt", "--steps", 30).splitlines()
    halves = []
    for steps, workers in ((10, 2), (30, 0)):
        more = ("--out", tmp_path / "halves.pt", "--steps", steps, "--workers", workers)
        halves += run("train_ar.py", tmp_path / "cache", *small, *more).splitlines()
    assert len(whole) == 3 and halves == whole
    losses = [float(line.rsplit(" ", 1)[1]) for line in whole]
    assert losses[-1] < losses[0]


def test_llamagen(tmp_path):
    codes = np.random.default_rng(0).integers(0, 16_384, (20, 1, 10, 256))
    for name in ("codes", "labels"):
        (tmp_path / f"imagenet256_{name}").mkdir()
    for image in range(20):
        np.save(tmp_path / f"imagenet256_codes/{image}.npy", codes[image])
        np.save(tmp_path / f"imagenet256_labels/{image}.npy", np.array([image % 3]))
    assert "200 rows (20 images x 10 views) of 16x16 tokens, 14 bits" in run("llamagen.py", "convert", tmp_path, tmp_path / "cache")
    cache = tokengrid.TokenCache(tmp_path / "cache")
    assert np.array_equal(cache[:].reshape(codes.shape), codes) and cache.labels[::10].tolist() == [i % 3 for i in range(20)]
    assert run("llamagen.py", "train", tmp_path / "cache").splitlines() == ["codes (8, 256), labels (8,)"] * 2
