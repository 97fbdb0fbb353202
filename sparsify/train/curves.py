"""The curves of a run: one JSON object per step, appended as training goes and cut back when it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CURVES = "curves.jsonl"
CURVES_PLOT = "curves.svg"


class Curves:
    """Appends to a JSONL file; each line has `step`, counted from 1."""

    def __init__(self, path: Path) -> None:
        """Use `path`, which is made with the first line."""
        self.path = path

    def cut(self, step: int) -> None:
        """Drop what was logged after `step`, and a torn last line: the run goes on from there."""
        if not self.path.exists():
            return
        part = self.path.with_name(self.path.name + ".part")
        with part.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in read_curves(self.path) if line["step"] <= step)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, self.path)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(line)) + "\n")

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        if self.path.exists():
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file of curves."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
