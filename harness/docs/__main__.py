"""Bring what is generated in a docs folder up to date: `python -m harness.docs docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.docs.pages import reference_pages
from harness.docs.pictures import pictures
from harness.docs.planning import updated
from harness.records import write_text_atomic

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m harness.docs docs")
    docs = Path(sys.argv[1])
    for name, text in reference_pages().items():
        write_text_atomic(docs / "reference" / name, text)
    for name, picture in pictures(docs.parent / "results").items():
        write_text_atomic(docs / "images" / name, picture)
    planning = docs / "explanation" / "planning.md"
    write_text_atomic(planning, updated(planning.read_text(encoding="utf-8")))
