"""Looks at everything, one after the other; each look is a function that a test can give other facts."""

from __future__ import annotations

from pathlib import Path

from harness.doctor import environment, tools
from harness.doctor.finding import Diagnosis


def examine(*, data_dir: Path | None = None, offline: bool = False) -> Diagnosis:
    """Examine this machine; changes nothing. Imports torch to see whether it loads.

    Args:
        data_dir: folder of the original data files; None leaves them out.
        offline: do not try the hub.
    """
    return Diagnosis(
        (
            environment.python(),
            *environment.packages(),
            *environment.torch(),
            environment.processor(),
            environment.memory(),
            environment.disk(Path.cwd()),
            tools.sandbox(),
            *tools.bundled(),
            *tools.real_data(data_dir),
            tools.kernels(),
            tools.compiler(),
            *tools.instructions(),
            tools.hub(offline=offline),
        )
    )
