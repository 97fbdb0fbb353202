"""TensorBoard, where it is installed: the numbers of `curves.jsonl` as scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOARD = "tensorboard"


class Board:
    """Writes event files to a folder; does nothing where tensorboard is not installed."""

    def __init__(self, directory: Path, step: int) -> None:
        """Write to `directory`; what an interrupted run wrote there after `step` is hidden."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer: Any = None
        else:
            self._writer = SummaryWriter(str(directory), purge_step=step or None)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a line of curves."""
        if self._writer is None:
            return
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write out what is left."""
        if self._writer is not None:
            self._writer.close()


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of curves as flat names and numbers: `loss/ce`, `squarehead/block_03`, `lr`."""
    flat: dict[str, float] = {f"loss/{name}": value for name, value in line["losses"].items()}
    blocks = line.get("squarehead_blocks", [])
    flat |= {f"squarehead/block_{index:02d}": value for index, value in enumerate(blocks)}
    plain = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
    return {**flat, **plain}
