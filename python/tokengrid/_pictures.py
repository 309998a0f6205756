"""Rows as pictures: decoded by the command, which has the tokenizers."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from typing import IO, Any

from ._program import find_program

#: How long the decoder may take for one picture, in seconds.
_PATIENCE_SECS = 600


class NoPictures(Exception):
    """Why there are none, and what to do."""


def decode(folder: str, tokenizer: str | os.PathLike[str], rows: Iterable[int]) -> list[bytes]:
    """The pictures of rows of the cache in ``folder``, as PNG files. ``tokenizer``: weights, or ``tiny``."""
    program = find_program()
    if program is None:
        raise NoPictures("pictures are decoded by the program tokengrid, which this package was installed without")
    # It is loaded once for all rows, and listens where only this machine reaches it.
    command = [program, "view", folder, "--tokenizer", os.fspath(tokenizer), "--port", "0", "--json"]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as server,
    ):
        try:
            printed = _first_object(server.stdout)
            if "address" not in printed:
                server.wait()
                reason = printed.get("error") or _last_line(said) or f"{program} ended with code {server.returncode}"
                raise NoPictures(reason)
            address = printed["address"].removeprefix("http://")
            return [_picture(address, row) for row in rows]
        finally:
            server.kill()


def _first_object(printed: IO[bytes]) -> dict[str, Any]:
    """What the program prints once it listens, or where it cannot; nothing if it ended before."""
    text = b""
    for line in printed:
        text += line
        if line.rstrip() == b"}":
            return json.loads(text)
    return {}


def _picture(address: str, row: int) -> bytes:
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE_SECS)
    try:
        connection.request("GET", f"/picture/decoded/{row}.png")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise NoPictures(json.loads(body)["error"])
    return body


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
