"""The raw record of a benchmark run: one JSON line per finished arm or timing, kept so that none runs twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import CorruptRecordError


class Journal:
    """Lines of a file that only grows; a last line cut off by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            CorruptRecordError: A line other than the last is no JSON object.
        """
        self._path = path
        self.lines: list[dict[str, Any]] = []
        if not path.exists():
            return
        raw = path.read_text("utf-8").split("\n")
        for number, line in enumerate(raw, start=1):
            if not line:
                continue
            try:
                self.lines.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(raw):
                    raise CorruptRecordError(f"{path}:{number} is damaged; remove that line and run again") from None
                path.write_text("\n".join(raw[:-1]) + "\n", "utf-8")

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The last line that has all of these values, or None."""
        found = (line for line in reversed(self.lines) if all(line.get(name) == value for name, value in key.items()))
        return next(found, None)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is on the disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.lines.append(dict(line))
