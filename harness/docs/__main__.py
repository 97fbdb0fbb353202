"""Write the reference pages: `python -m harness.docs docs/reference`."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.docs.pages import reference_pages
from harness.records import write_text_atomic

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m harness.docs docs/reference")
    for name, text in reference_pages().items():
        write_text_atomic(Path(sys.argv[1]) / name, text)
