"""How a cache looks in a notebook."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _pictures

if TYPE_CHECKING:
    from ._cache import TokenCache

#: Rows that are shown of a cache.
_ROWS = 5
#: Tokens that are shown of a row.
_TOKENS = 8


class Shown:
    """Rows of a cache as a table, for a notebook: what :meth:`tokengrid.TokenCache.show` returns."""

    def __init__(self, cache: TokenCache, rows: Sequence[int], tokenizer: str | os.PathLike[str] | None) -> None:
        self._repr = f"<{len(rows)} rows of {cache!r}: a notebook shows them>"
        self._html = _rows(cache, rows, tokenizer)

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._repr


def text(plain: str) -> str:
    """Plain text."""
    return f"<pre>{html.escape(plain)}</pre>"


def cache(cache: TokenCache) -> str:
    """What the cache is."""
    info = cache.info
    height, width = cache.grid
    facts = {
        "path": cache.path,
        "rows": f"{len(cache):,} ({cache.num_images:,} images x {cache.num_views} views)",
        "grid": f"{height} x {width} tokens of {cache.bits} bits",
        "size": f"{info['bytes']:,} bytes, {info['bytes_per_row']:.1f} per row",
        "tokenizer": info["tokenizer"]["name"] or info["tokenizer"]["fingerprint"][:12] or "unknown",
        "classes": f"{info['classes']:,}",
        "content hash": cache.content_hash,
    }
    if cache.splits:
        facts["splits"] = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in cache.splits.items())
    return _table((), [(f"<b>{name}</b>", html.escape(value)) for name, value in facts.items()])


def first_rows(cache: TokenCache) -> range:
    """The rows that are shown where none are asked for."""
    return range(min(_ROWS, len(cache)))


def _rows(cache: TokenCache, rows: Sequence[int], tokenizer: str | os.PathLike[str] | None) -> str:
    if not rows:
        return ""
    pictures, note = _decoded(cache, rows, tokenizer)
    heads = ("row", "key", "view", "label", "tokens", *(["picture"] if pictures else []))
    lines = [_line(cache, row) for row in rows]
    for line, picture in zip(lines, pictures):
        data = base64.b64encode(picture).decode()
        line.append(f'<img alt="decoded" style="max-width: 256px" src="data:image/png;base64,{data}">')
    return _table(heads, lines) + (f"<p>{html.escape(note)}</p>" if note else "")


def _decoded(
    cache: TokenCache, rows: Sequence[int], tokenizer: str | os.PathLike[str] | None
) -> tuple[list[bytes], str | None]:
    """Pictures of the rows, or why there are none."""
    if tokenizer is None:
        return [], 'For pictures name the tokenizer: cache.show(tokenizer="weights.ckpt")'
    try:
        return _pictures.decode(os.fspath(cache._core.local_dir), tokenizer, rows), None
    except _pictures.NoPictures as reason:
        return [], f"No pictures: {reason}"


def _line(cache: TokenCache, index: int) -> list[str]:
    row = cache.row(index)
    name = cache.classes[row.label] if 0 <= row.label < len(cache.classes) else ""
    tokens = " ".join(map(str, row.tokens.ravel()[:_TOKENS])) + (" ..." if cache.num_tokens > _TOKENS else "")
    return [html.escape(str(cell)) for cell in (index, row.key, row.view, f"{row.label} {name}".strip(), tokens)]


def _table(heads: tuple[str, ...], rows: list) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if heads else ''}{body}</table>"
