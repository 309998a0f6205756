"""Reading: values, shapes, types, life."""

import faulthandler
import os
import pickle
import threading

import numpy as np
import pytest

import tokengrid
from conftest import CLASSES, make_cache


def test_what_was_written_is_read(written):
    path, tokens, labels, keys = written
    with tokengrid.TokenCache(path) as cache:
        assert len(cache) == 100 and cache.shape == (100, 16) and cache.grid == (4, 4) and cache.bits == 18
        assert (cache.num_images, cache.num_views, cache.classes) == (50, 2, CLASSES)
        assert np.array_equal(cache[:], tokens) and cache[:].dtype == np.int64
        assert np.array_equal(cache[7], tokens[7]) and np.array_equal(cache[-1], tokens[-1])
        assert np.array_equal(cache[10:90:7], tokens[10:90:7]) and np.array_equal(cache[90:10:-7], tokens[90:10:-7])
        assert np.array_equal(cache[[3, 3, -2]], tokens[[3, 3, -2]])
        assert np.array_equal(cache[labels == 1], tokens[labels == 1])
        assert np.array_equal(np.stack(list(cache)), tokens)
        assert np.array_equal(cache.labels, labels) and cache.labels.dtype == np.int32
        assert cache.views.tolist() == [0, 1] * 50
        assert list(cache.keys) == keys and cache.keys[-1] == keys[-1] and cache.keys[5:50:9] == keys[5:50:9]
        assert cache.keys[50:5:-9] == keys[50:5:-9] and cache.keys[3:3] == []
        row = cache.row(5)
        assert np.array_equal(row.tokens, tokens[5].reshape(4, 4)) and (row.key, row.label) == (keys[5], labels[5])
        assert (row.view, row.crop_x, row.crop_y, row.flip) == (1, 0, 0, False)
        assert cache.splits == {"train": range(80), "val": range(80, 100)}
        assert cache.info["rows"] == 100 and cache.info["content_hash"] == cache.content_hash


@pytest.mark.parametrize("bits", range(1, 25))
def test_every_width_in_every_type(tmp_path, bits):
    tokens, _, _ = make_cache(tmp_path / "cache", images=40, views=1, grid=(3, 5), bits=bits, rows_per_group=64)
    rows = [39, 0, 20]
    cache = tokengrid.TokenCache(tmp_path / "cache")
    types = [np.int64, np.int32, np.uint32] + ([np.uint16] if bits <= 16 else [])
    for dtype in types:
        batch = cache.batch(rows, dtype=dtype)
        assert batch.dtype == dtype and np.array_equal(batch, tokens[rows])
    low, high = cache.factorized(rows, bits // 3)
    assert np.array_equal(low, tokens[rows] % 2 ** (bits // 3)) and np.array_equal(high, tokens[rows] >> (bits // 3))
    if bits > 16:
        with pytest.raises(tokengrid.CacheValueError, match="not uint16"):
            cache.batch(rows, dtype=np.uint16)


def test_a_given_array_is_filled(written):
    path, tokens, _, _ = written
    cache = tokengrid.TokenCache(path)
    for shape in ((3, 16), (3, 4, 4)):
        out = np.full(shape, -1)
        assert cache.batch([9, 8, 7], out=out) is out
        assert np.array_equal(out.reshape(3, 16), tokens[[9, 8, 7]])
    for out, words in [
        (np.zeros((2, 16), np.int64), "shape"),
        (np.zeros((3, 32), np.int64)[:, ::2], "contiguous"),
        (np.zeros((3, 16)), "not float64"),
    ]:
        with pytest.raises(tokengrid.CacheValueError, match=words):
            cache.batch([9, 8, 7], out=out)
    with pytest.raises(tokengrid.CacheValueError, match="but dtype is"):
        cache.batch([9], out=np.zeros((1, 16), np.int64), dtype=np.int32)
    assert cache.batch([]).shape == (0, 16)


def test_packed_rows_are_not_copied(written):
    path, tokens, _, _ = written
    cache = tokengrid.TokenCache(path)
    packed = cache.packed(0, 16)
    bits = np.unpackbits(packed, axis=1, bitorder="little").reshape(16, 16, 18)
    assert np.array_equal(bits @ (1 << np.arange(18)), tokens[:16])
    assert not packed.flags.owndata and not packed.flags.writeable
    assert np.shares_memory(packed, cache.packed(3, 5)), "both are the map"
    everything = cache.packed()
    assert everything.shape == (100, 36) and np.array_equal(everything[:16], packed)
    # The array keeps the map, whatever becomes of the cache.
    expected = packed.copy()
    cache.close()
    del cache
    assert np.array_equal(packed, expected)


def test_rows_that_do_not_exist(written):
    cache = tokengrid.TokenCache(written[0])
    for index in (100, -101, 2**40):
        for read in (lambda: cache[index], lambda: cache.batch([0, index]), lambda: cache.row(index), lambda: cache.keys[index]):
            with pytest.raises(tokengrid.RowIndexError, match=f"row {index} does not exist: the cache has 100 rows") as caught:
                read()
            assert isinstance(caught.value, IndexError)
    with pytest.raises(TypeError):
        cache.batch([0.5])
    with pytest.raises(tokengrid.RowIndexError, match="mask has 3 entries"):
        cache.batch([True, False, True])


def test_membership_is_asked_of_what_it_is_clear_for(written):
    path, tokens, _, keys = written
    cache = tokengrid.TokenCache(path)
    for item in (keys[0], 3, tokens[0]):
        with pytest.raises(TypeError, match="`key in cache.keys`"):
            item in cache
    assert keys[7] in cache.keys and keys[7][:-1] not in cache.keys and 7 not in cache.keys
    assert cache.keys.index(keys[8]) == 8


def test_find(written):
    path, _, labels, keys = written
    cache = tokengrid.TokenCache(path)
    assert cache.find("/7.JPEG").tolist() == [i for i, key in enumerate(keys) if "/7.JPEG" in key]
    assert cache.find(label=1, view=0).tolist() == [i for i, label in enumerate(labels) if label == 1 and i % 2 == 0]
    assert cache.find("nothing").size == 0


def test_verify_names_the_damage(written):
    path = written[0]
    cache = tokengrid.TokenCache(path)
    assert cache.verify() and cache.verify().problems == []
    shard = sorted(path.glob("*.parquet"))[1]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    report = cache.verify()
    assert not report.ok and report.problems[0].file == shard.name and report.problems[0].row_group == 0


def test_exceptions(written, tmp_path):
    path = written[0]
    with pytest.raises(tokengrid.NotACacheError, match="has no manifest.json") as caught:
        tokengrid.TokenCache(tmp_path)
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, tokengrid.CacheError)
    shard = sorted(path.glob("*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(tokengrid.DamagedCacheError, match="truncated or replaced"):
        tokengrid.TokenCache(path)
    shard.unlink()
    with pytest.raises(tokengrid.DamagedCacheError, match="is missing"):
        tokengrid.TokenCache(path)


def test_a_cache_that_is_replaced_while_it_is_open(written):
    path, tokens, _, keys = written
    cache = tokengrid.TokenCache(path)
    make_cache(path, seed=1, overwrite=True)
    assert np.array_equal(cache[:], tokens) and list(cache.keys) == keys, "the old files stay as long as they are mapped"
    for read in (lambda: cache.info, cache.verify, cache._repr_html_):
        with pytest.raises(tokengrid.CacheMismatchError, match="another cache than when it was opened"):
            read()
    assert tokengrid.TokenCache(path).verify()


def test_a_truncated_file_is_an_exception(tmp_path):
    """Also where others have installed a handler of their own for the signal behind it, as pytest does."""
    tokens, _, _ = make_cache(tmp_path / "cache", images=200, grid=(16, 16))
    cache, in_memory = (tokengrid.TokenCache(tmp_path / "cache", in_memory=copied) for copied in (False, True))
    faulthandler.disable()
    faulthandler.enable()
    for shard in (tmp_path / "cache").glob("*.parquet"):
        os.truncate(shard, 4096)
    with pytest.raises(tokengrid.DamagedCacheError, match="truncated while it was in use"):
        cache[:]
    assert np.array_equal(in_memory[:], tokens)


def test_pickles_share_the_map_and_refuse_another_cache(written, tmp_path):
    path, tokens, _, _ = written
    cache = tokengrid.TokenCache(path)
    data = pickle.dumps(cache)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert np.array_equal(copy[:], tokens) and np.shares_memory(copy.packed(0, 4), cache.packed(0, 4))
    del cache, copy
    assert np.array_equal(pickle.loads(data)[3], tokens[3])
    make_cache(path, seed=1, overwrite=True)
    with pytest.raises(tokengrid.CacheMismatchError, match="holds another cache"):
        pickle.loads(data)


def test_relative_paths_survive_another_working_directory(written, monkeypatch):
    monkeypatch.chdir(written[0].parent)
    data = pickle.dumps(tokengrid.TokenCache("cache"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(data)) == 100


def test_threads_read_together(written):
    path, tokens, _, _ = written
    cache = tokengrid.TokenCache(path)
    wrong = []

    def read(seed):
        rows = np.random.default_rng(seed).integers(0, 100, 64)
        for _ in range(50):
            if not np.array_equal(cache.batch(rows), tokens[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_closed(written):
    with tokengrid.TokenCache(written[0]) as cache:
        pass
    assert "closed" in repr(cache)
    with pytest.raises(tokengrid.CacheValueError, match="is closed"):
        cache.batch([0])


def test_how_it_looks(written):
    path, tokens, _, keys = written
    cache = tokengrid.TokenCache(path)
    assert repr(cache) == f"TokenCache({str(path)!r}: 100 rows (50 images x 2 views) of 4x4 tokens, 18 bits)"
    html = cache._repr_html_()
    assert keys[0] in html and str(tokens[0, 0]) in html and "train (80 rows)" in html
    assert "cache.show(tokenizer=" in html and "<img" not in html
    shown = cache.show([99, -2])
    assert keys[99] in shown._repr_html_() and keys[0] not in shown._repr_html_() and "2 rows of" in repr(shown)
    with pytest.raises(tokengrid.RowIndexError):
        cache.show([100])
