"""`python -m harness.evaluate.sandbox.threats docs/sandbox.md`: brings a document's threat tables up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.evaluate.sandbox.threats.table import updated

if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(updated(document.read_text(encoding="utf-8")), encoding="utf-8")
