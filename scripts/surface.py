#!/usr/bin/env python3
"""Writes docs/src/surface.md: the public items of each library, from the pages that rustdoc has written to target/doc.

    make doc                           # checks it
    python3 scripts/surface.py         # updates it, after `make doc` or `cargo doc`
"""

import argparse
import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "target/doc"
BOOK = ROOT / "docs/src/surface.md"
CRATES = ["store", "ingest", "cache", "model", "tokenize", "train", "sample", "eval", "view"]
KINDS = {"fn": "function", "constant": "constant", "static": "static", "type": "type", "macro": "macro"}
INTRODUCTION = """# Public items

The public interface of the libraries: every public type, function and constant by module, with the first sentence of its documentation.
Methods, fields, shapes, units, errors and sources are in `target/doc/index.html` after `make doc`. Items that no other crate, no test
and no user of a library needs are `pub(crate)`, as the lint `unreachable_pub` checks.

This page is made by `scripts/surface.py`; `make doc` fails where it is out of date.
"""


class Items(HTMLParser):
    """The tables of items of one module's page: kind, name, address and first sentence of each."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.items = []
        self.inside = None
        self.in_code = False

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "dt":
            # What is public in a module below is listed there.
            self.inside = None if attributes.get("id", "").startswith("reexport.") else "dt"
        elif tag == "dd":
            self.inside = "dd"
        elif tag == "a" and self.inside == "dt" and "title" in attributes:
            name = attributes["title"].rsplit("::", 1)[-1]
            self.items.append({"kind": attributes["class"], "name": name, "page": attributes["href"], "text": ""})
        elif tag == "code" and self.inside == "dd":
            self.in_code = True
            self.items[-1]["text"] += "`"

    def handle_endtag(self, tag):
        if tag == "code" and self.in_code:
            self.in_code = False
            self.items[-1]["text"] += "`"
        elif tag in ("dt", "dd"):
            self.inside = None

    def handle_data(self, data):
        if self.inside == "dd":
            self.items[-1]["text"] += data if self.in_code else html.escape(data, quote=False)


def first_sentence(text):
    # Cargo documents crates in parallel: a link into one that has no pages yet keeps its brackets.
    text = re.sub(r"\[(`[^`]*`)\]", r"\1", " ".join(text.split()))
    ends = (match.start() + 1 for match in re.finditer(r"\. (?=[^a-z])", text))
    # A full stop within code does not end a sentence.
    return next((text[:end] for end in ends if text.count("`", 0, end) % 2 == 0), text)


def module(page, path):
    """The lines of a module and of those below it."""
    items = Items()
    items.feed(page.read_text(encoding="utf-8"))
    own = [item for item in items.items if item["kind"] != "mod"]
    lines = [f"\n### `{path}`\n"] if own else []
    for item in own:
        kind = KINDS.get(item["kind"], item["kind"])
        lines.append(f"- `{item['name']}`, {kind}: {first_sentence(item['text'])}")
    for item in items.items:
        if item["kind"] == "mod":
            lines += module(page.parent / item["page"], f"{path}::{item['name']}")
    return lines


def surface():
    lines = [INTRODUCTION]
    for crate in CRATES:
        lines.append(f"\n## {crate}")
        lines += module(PAGES / f"tokengrid_{crate}/index.html", f"tokengrid_{crate}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    if parser.parse_args().check:
        if BOOK.read_text(encoding="utf-8") != surface():
            sys.exit("docs/src/surface.md is out of date: update it with `python3 scripts/surface.py`")
    else:
        BOOK.write_text(surface(), encoding="utf-8")


if __name__ == "__main__":
    main()
