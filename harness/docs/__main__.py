"""Bring what is generated in a docs folder up to date: `python -m harness.docs docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.docs.pages import reference_pages
from harness.docs.pictures import pictures
from harness.docs.planning import updated
from harness.records import write_text_atomic

if __name__ == "__main__":
    docs = Path(sys.argv[1]) if len(sys.argv) == 2 else Path()
    planning = docs / "explanation" / "planning.md"
    if not planning.is_file():
        sys.exit("usage: python -m harness.docs docs")
    for name, text in reference_pages().items():
        write_text_atomic(docs / "reference" / name, text)
    for name, picture in pictures(docs.parent / "results").items():
        write_text_atomic(docs / "images" / name, picture)
    write_text_atomic(planning, updated(planning.read_text(encoding="utf-8")))
