"""Pictures in a notebook, decoded by the command."""

import base64
import pickle
import re
import subprocess
import sysconfig
import zlib
from pathlib import Path

import pytest
from conftest import make_cache

import tokengrid
from tokengrid import _pictures

PROGRAM = Path(sysconfig.get_path("scripts")) / "tokengrid"
PHOTOS = Path(__file__).parents[2] / "data/photos/n02123045"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package was installed without programs (from source)")


def pictures_in(html):
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]


def size_of(png):
    """Height and width of a picture of 8-bit RGB, all of whose lines are there."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert png[24:26] == b"\x08\x02"
    data, at = b"", 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    assert len(zlib.decompress(data)) == height * (1 + 3 * width), "whole"
    return height, width


@pytest.fixture
def decodable(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    command = [PROGRAM, "tokenize", PHOTOS, "--tokenizer", "tiny", "--size", "32", "--limit", "3", "--out", tmp_path / "cache"]
    subprocess.run([*command, "--quiet"], check=True)
    return tmp_path / "cache"


def test_rows_are_shown_as_they_are_decoded(decodable):
    cache = tokengrid.TokenCache(decodable)
    assert pictures_in(cache._repr_html_()) == []
    shown = pictures_in(cache.show([2, 0], tokenizer="tiny")._repr_html_())
    assert [size_of(png) for png in shown] == [(32, 32), (32, 32)] and shown[0] != shown[1]
    with_tokenizer = pickle.loads(pickle.dumps(tokengrid.TokenCache(decodable, tokenizer="tiny")))
    in_order = pictures_in(with_tokenizer._repr_html_())
    assert len(in_order) == 3 and in_order[2] == shown[0] and in_order[0] == shown[1]


def test_the_reason_is_shown_where_there_are_no_pictures(tmp_path, monkeypatch):
    make_cache(tmp_path / "cache", grid=(2, 2))
    cache = tokengrid.TokenCache(tmp_path / "cache")
    missing = cache.show(tokenizer=tmp_path / "no-weights.ckpt")._repr_html_()
    assert "<p>No pictures: " in missing and "<img" not in missing and str(cache[0][0]) in missing
    if PROGRAM.with_name("tokengrid-torch").exists():
        assert "no-weights.ckpt" in missing
    monkeypatch.setattr(_pictures, "find_program", lambda: None)
    assert "installed without" in cache.show(tokenizer="tiny")._repr_html_()
