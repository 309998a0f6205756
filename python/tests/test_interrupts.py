"""Ctrl-C: long calls end with KeyboardInterrupt, and what they were asked on stays usable. Threads do not keep a process from ending."""

import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import make_cache

import tokengrid


class CtrlC:
    """Sends SIGINT to this process from another thread, when the main thread has let go of the interpreter's lock: inside a call.

    Numpy lets go of it too, when it fills or copies large arrays: they are made before.
    """

    def __enter__(self):
        self.interval = sys.getswitchinterval()
        # The other thread runs only when this one lets it.
        sys.setswitchinterval(1000)
        self.go = threading.Lock()
        self.go.acquire()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self.go.release

    def run(self):
        with self.go:
            os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *_):
        sys.setswitchinterval(self.interval)
        self.thread.join()


@pytest.mark.parametrize("how", ["batch", "factorized"])
def test_a_large_batch(tmp_path, how):
    tokens, _, _ = make_cache(tmp_path / "cache", images=4, views=1, grid=(64, 64))
    cache = tokengrid.TokenCache(tmp_path / "cache")
    # 4 GB, of which only what is written before the end becomes memory.
    rows = np.full(2**17, 3)
    out = np.zeros((len(rows), 4096), np.int64)
    with CtrlC() as press, pytest.raises(KeyboardInterrupt):
        press()
        cache.batch(rows, out=out) if how == "batch" else cache.factorized(rows, 6)
    assert not out[-1].any(), "it was not read to its end"
    assert np.array_equal(cache[[3, 0]], tokens[[3, 0]])


def test_a_large_push(tmp_path):
    shape = {"grid": (1, 1), "bits": 16, "images": 60_000, "rows_per_group": 16, "groups_per_shard": 4096}
    writer = tokengrid.CacheWriter(tmp_path / "cache", **shape)
    tokens, labels, keys = np.arange(60_000)[:, None], np.full(60_000, -1), [str(i) for i in range(60_000)]
    with CtrlC() as press, pytest.raises(KeyboardInterrupt):
        press()
        writer.push_batch(tokens, keys=keys, labels=labels)
    added = writer.next_image
    assert added < 60_000, "it was not pushed to its end"
    writer.push_batch(tokens[added : added + 5], keys=keys[added : added + 5])
    assert writer.next_image == added + 5
    writer.close()


def test_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept_and_interrupt():
            connection, _ = server.accept()
            os.kill(os.getpid(), signal.SIGINT)
            closed.wait()
            connection.close()

        closed = threading.Event()
        thread = threading.Thread(target=accept_and_interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            tokengrid.TokenCache(f"http://127.0.0.1:{server.getsockname()[1]}/cache")
        closed.set()
        thread.join()


#: Ends while threads are in the middle of calls, with and without the interpreter's lock.
THREADS = """
import sys, threading, numpy as np, tokengrid
cache = tokengrid.TokenCache(sys.argv[1])
loader = tokengrid.Loader(cache, 64)
started = threading.Barrier(7)
def work(step):
    step()
    started.wait()
    while True:
        step()
rows = np.random.default_rng(0).integers(0, len(cache), 4096)
steps = [lambda: cache.batch(rows), lambda: next(loader), cache.verify]
for step in steps * 2:
    threading.Thread(target=work, args=(step,), daemon=True).start()
started.wait()
print("ends")
"""


def test_a_process_ends_while_its_threads_read(written):
    for _ in range(5):
        result = subprocess.run([sys.executable, "-c", THREADS, written[0]], capture_output=True, text=True, timeout=120)
        assert (result.returncode, result.stdout, result.stderr) == (0, "ends\n", "")
