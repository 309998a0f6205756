"""Invalid arguments: each is refused by name, and nothing is written for it."""

import numpy as np
import pytest
import tokengrid
from tokengrid import CacheValueError

GRID = np.arange(16).reshape(4, 4)


def writer(path, **more):
    return tokengrid.CacheWriter(path, **{"grid": (4, 4), "bits": 10, "images": 2, **more})


@pytest.mark.parametrize("shape", [(2, 8), (8, 2), (16, 1), (4, 4, 1)])
def test_grids_of_another_shape(tmp_path, shape):
    with pytest.raises(CacheValueError, match=r"expected \[1, 4, 4\] or \[1, 16\]"):
        writer(tmp_path / "c").push(GRID.reshape(shape), key="k")


def test_views_in_another_place(tmp_path):
    two = np.stack([GRID, GRID + 16])
    with writer(tmp_path / "c", views=2) as made:
        with pytest.raises(CacheValueError, match="expected"):
            made.push(np.moveaxis(two, 0, -1), key="k")
        made.push(two, key="k")
        made.push(two.reshape(2, 16), key="l")
    assert (tokengrid.TokenCache(tmp_path / "c")[[1, 3]] == GRID.ravel() + 16).all()


@pytest.mark.parametrize("crops", [[[1.5, 2, 0]], [[1, 2, 5]], [[-1, 0, 0]], [[2**40, 0, 0]], [[1, 2]]])
def test_crops(tmp_path, crops):
    with pytest.raises((CacheValueError, TypeError), match="crops"):
        writer(tmp_path / "c").push(GRID, key="k", crops=crops)


@pytest.mark.parametrize(
    "more", [{"images": 2.7}, {"bits": 9.9}, {"bits": True}, {"bits": "8"}, {"grid": (4.0, 4.0)}, {"classes": "xyz"}]
)
def test_numbers_that_are_not_whole(tmp_path, more):
    with pytest.raises(TypeError, match="expected"):
        writer(tmp_path / "c", **more)


@pytest.mark.parametrize("more", [{"images": -1}, {"bits": 0}, {"bits": 25}, {"grid": (-1, 2)}, {"grid": (1, 2, 3)}])
def test_numbers_out_of_range(tmp_path, more):
    with pytest.raises(CacheValueError, match="expected"):
        writer(tmp_path / "c", **more)


def test_more_images_than_the_job_has(tmp_path):
    with writer(tmp_path / "c") as made:
        made.push_batch([GRID, GRID], keys=["a", "b"])
        with pytest.raises(CacheValueError, match="only 0 of 2 are left"):
            made.push(GRID, key="c")


def test_labels_of_another_number(tmp_path):
    with pytest.raises(CacheValueError, match=r"labels have shape \[1\], expected \[2\]"):
        writer(tmp_path / "c").push_batch([GRID, GRID], keys=["a", "b"], labels=[1])


def test_a_masked_array(tmp_path):
    with pytest.raises(TypeError, match="masked"):
        writer(tmp_path / "c").push(np.ma.masked_equal(GRID, 3), key="k")


@pytest.fixture
def cache(tmp_path):
    with writer(tmp_path / "c") as made:
        made.push_batch([GRID, GRID], keys=["a", "b"])
    return tokengrid.TokenCache(tmp_path / "c")


def test_indices_of_two_dimensions(cache):
    with pytest.raises(TypeError, match="indexed by rows"):
        cache[0, 0]
    with pytest.raises(CacheValueError, match="low_bits"):
        cache.factorized([0], -1)


@pytest.mark.parametrize("batch_size", [0, -1, 10**12])
def test_batch_sizes(cache, batch_size):
    with pytest.raises(CacheValueError, match="batch_size"):
        tokengrid.Loader(cache, batch_size)


def test_half_an_environment_of_ranks(cache, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CacheValueError, match="rank is missing"):
        tokengrid.Loader(cache, 1)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(CacheValueError, match="RANK is 'x'"):
        tokengrid.Loader(cache, 1)


@pytest.mark.parametrize("change", [{"position": -5}, {"position": 2**70}, {"seed": None}, {"version": 2}])
def test_states_that_no_loader_made(cache, change):
    loader = tokengrid.Loader(cache, 1)
    with pytest.raises((CacheValueError, TypeError), match="state"):
        loader.load_state_dict(loader.state_dict() | change)
    with pytest.raises(CacheValueError, match="NoneType"):
        loader.load_state_dict(None)


def test_messages_name_arguments_and_not_flags(tmp_path, cache):
    """The texts are those of the command, which names its own flags."""
    with pytest.raises(tokengrid.CacheMismatchError, match=r"choose another folder, or overwrite=True$"):
        writer(cache.path, bits=11)
    writer(tmp_path / "ranks", rank=1, world_size=3).close()
    with pytest.raises(tokengrid.UnfinishedCacheError) as caught:
        tokengrid.TokenCache(tmp_path / "ranks")
    assert "with rank for each of them and world_size 3" in str(caught.value) and "--" not in str(caught.value)
