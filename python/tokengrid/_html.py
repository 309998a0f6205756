"""How a cache looks in a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cache import TokenCache

#: Rows that are shown.
_ROWS = 5
#: Tokens that are shown of a row.
_TOKENS = 8


def text(plain: str) -> str:
    """Plain text."""
    return f"<pre>{html.escape(plain)}</pre>"


def cache(cache: TokenCache) -> str:
    """What the cache is, and its first rows."""
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
    return _table((), [(f"<b>{name}</b>", html.escape(value)) for name, value in facts.items()]) + _rows(cache)


def _rows(cache: TokenCache) -> str:
    rows = [cache.row(index) for index in range(min(_ROWS, len(cache)))]
    lines = []
    for index, row in enumerate(rows):
        name = cache.classes[row.label] if 0 <= row.label < len(cache.classes) else ""
        tokens = " ".join(map(str, row.tokens.ravel()[:_TOKENS])) + (" ..." if cache.num_tokens > _TOKENS else "")
        lines.append([html.escape(str(cell)) for cell in (index, row.key, row.view, f"{row.label} {name}".strip(), tokens)])
    return _table(("row", "key", "view", "label", "tokens"), lines) if lines else ""


def _table(heads: tuple[str, ...], rows: list) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if heads else ''}{body}</table>"
