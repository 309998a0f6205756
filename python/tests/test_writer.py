"""Writing: the same cache after a kill, and what is refused."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import tokengrid
from conftest import make_cache

#: Writes 200 images and is killed after image `stop`.
SCRIPT = """
import os, signal, sys
import numpy as np, tokengrid
path, stop = sys.argv[1], int(sys.argv[2])
with tokengrid.CacheWriter(path, grid=(4, 4), bits=14, images=200, rows_per_group=16, tokenizer="vq", recipe={"size": 256}) as writer:
    print(writer.next_image, flush=True)
    for image in range(writer.next_image, 200):
        if image == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        writer.push(np.full((4, 4), image), key=f"{image}.png", label=image % 7)
"""


def run(path, stop):
    return subprocess.run([sys.executable, "-c", SCRIPT, path, str(stop)], capture_output=True, text=True)


def test_a_killed_writer_is_continued(tmp_path):
    assert run(tmp_path / "whole", -1).returncode == 0
    begins = []
    for stop in (50, 130, 199):
        killed = run(tmp_path / "cache", stop)
        assert killed.returncode == -signal.SIGKILL
        begins.append(int(killed.stdout))
        with pytest.raises(tokengrid.UnfinishedCacheError, match="unfinished job"):
            tokengrid.TokenCache(tmp_path / "cache")
    assert run(tmp_path / "cache", -1).returncode == 0
    assert begins == [0, 48, 128], "at most one row group is done again"
    whole, cache = tokengrid.TokenCache(tmp_path / "whole"), tokengrid.TokenCache(tmp_path / "cache")
    assert cache.content_hash == whole.content_hash and cache.verify()
    assert cache.info["tokenizer"]["name"] == "vq" and cache.info["recipe"] == {"size": 256}


def test_an_exception_keeps_what_was_added(tmp_path):
    settings = {"grid": (2, 2), "bits": 8, "images": 10}
    with pytest.raises(KeyboardInterrupt):
        with tokengrid.CacheWriter(tmp_path / "cache", **settings) as writer:
            writer.push_batch(np.zeros((4, 4), np.uint8), keys=list("abcd"))
            raise KeyboardInterrupt
    with tokengrid.CacheWriter(tmp_path / "cache", **settings) as writer:
        assert writer.next_image == 4
        writer.push_batch(np.ones((6, 2, 2), np.int16), keys=list("efghij"))
    with tokengrid.CacheWriter(tmp_path / "cache", **settings) as writer:
        assert writer.is_complete and writer.next_image == 10
    assert tokengrid.TokenCache(tmp_path / "cache")[:].sum() == 24


def test_ranks_share_a_job(tmp_path):
    for rank in range(3):
        writer = tokengrid.CacheWriter(tmp_path / "cache", grid=(1, 2), bits=3, images=10, rank=rank, world_size=3)
        for image in writer.images:
            writer.push([image % 8, 1], key=str(image))
        finished = writer.finish()
        assert finished.published == (rank == 2)
    assert finished.rows == 10 and len(finished.content_hash) == 64
    assert tokengrid.TokenCache(tmp_path / "cache")[:][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_what_is_refused_and_that_the_writer_stays_usable(tmp_path):
    writer = tokengrid.CacheWriter(tmp_path / "cache", grid=(2, 2), bits=4, images=3, classes=["a", "b"])
    for tokens, more, words in [
        ([1, 2, 3, 16], {}, r"image 0 \(k\): token is 16, expected 0 to 2\^4 - 1"),
        ([1, 2, 3, -1], {}, "token is -1"),
        ([1, 2, 3], {}, r"tokens have shape \[1, 3\]"),
        ([1, 2, 3, 4], {"label": 2}, "label is 2, expected -1 or one of 2 classes"),
    ]:
        with pytest.raises(tokengrid.CacheValueError, match=words):
            writer.push(tokens, key="k", **more)
    with pytest.raises(TypeError, match="float64, expected whole numbers"):
        writer.push([0.5] * 4, key="k")
    with pytest.raises(tokengrid.CacheValueError, match="token is 99"):
        writer.push_batch([[1] * 4, [99] * 4], keys=["a", "b"])
    assert writer.next_image == 1, "the one before was added"
    with pytest.raises(tokengrid.CacheValueError, match="2 images, from image 1 on, were not added"):
        writer.finish()
    writer.quarantine("b", "cannot be decoded")
    writer.push([1] * 4, key="c", label=1, crops=[[3, 4, 1]])
    finished = writer.finish()
    assert (finished.images, finished.quarantined) == (2, 1) and writer.finish() == finished
    row = tokengrid.TokenCache(tmp_path / "cache").row(1)
    assert (row.key, row.label, row.crop_x, row.crop_y, row.flip) == ("c", 1, 3, 4, True)


def test_another_job_is_refused_by_name(tmp_path):
    make_cache(tmp_path / "cache", tokenizer={"name": "a", "fingerprint": "1", "margin": 0.5})
    info = tokengrid.TokenCache(tmp_path / "cache").info["tokenizer"]
    assert info["fingerprint"] == "1" and info["details"] == {"margin": 0.5}
    with pytest.raises(tokengrid.CacheMismatchError, match="tokenizer.fingerprint is"):
        make_cache(tmp_path / "cache", tokenizer={"name": "a", "fingerprint": "2", "margin": 0.5})
    with pytest.raises(tokengrid.CacheValueError, match="bits is 25"):
        tokengrid.CacheWriter(tmp_path / "wide", grid=(1, 1), bits=25, images=1)
    with pytest.raises(tokengrid.CacheValueError):
        tokengrid.CacheWriter(tmp_path / "wide", grid=(1, 1), bits=8, images=-1)


def test_two_writers_do_not_meet(tmp_path):
    settings = {"grid": (1, 1), "bits": 1, "images": 2}
    first = tokengrid.CacheWriter(tmp_path / "cache", **settings)
    with pytest.raises(tokengrid.CacheInUseError, match="in use by another process"):
        tokengrid.CacheWriter(tmp_path / "cache", **settings)
    first.close()
    tokengrid.CacheWriter(tmp_path / "cache", **settings).close()


def test_a_folder_that_cannot_be_made_is_an_os_error():
    with pytest.raises(tokengrid.CacheIOError) as caught:
        tokengrid.CacheWriter("/proc/nowhere", grid=(1, 1), bits=1, images=1)
    assert isinstance(caught.value, OSError)
