"""Caches that the tests read."""

import numpy as np
import pytest

import tokengrid

CLASSES = ["n01440764", "n01443537", "n01484850"]


def make_cache(path, *, images=50, views=2, grid=(4, 4), bits=18, seed=0, rows_per_group=16, **more):
    """Writes a cache of random tokens; what was written."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 1 << bits, (images, views, *grid))
    labels = rng.integers(0, len(CLASSES), images)
    keys = [f"{CLASSES[label]}/{image}.JPEG" for image, label in enumerate(labels)]
    shape = {"grid": grid, "bits": bits, "images": images, "views": views, "classes": CLASSES}
    with tokengrid.CacheWriter(path, **shape, rows_per_group=rows_per_group, groups_per_shard=2, **more) as writer:
        start = writer.next_image
        writer.push_batch(tokens[start:], keys=keys[start:], labels=labels[start:])
    return tokens.reshape(images * views, -1), np.repeat(labels, views), [key for key in keys for _ in range(views)]


@pytest.fixture
def written(tmp_path):
    """A cache with two splits: its path, tokens, labels, keys."""
    path = tmp_path / "cache"
    return path, *make_cache(path, splits={"train": 40, "val": 10})
