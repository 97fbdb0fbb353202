"""Progress for people: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_EVERY_S = 15.0
_LEAST_DONE = 0.02


class Phase:
    """One phase of a run (make, evaluate, speed) with a bar of its own; use it as a context manager.

    Args:
        title: What is going on.
        total: Units of work.
        quiet: Show nothing.
    """

    def __init__(self, title: str, total: float, *, quiet: bool = False) -> None:
        self._title, self._total, self._quiet = title, max(total, 1e-9), quiet
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Phase:
        """Show the bar."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:9}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, total: float, note: str = "") -> None:
        """Show that `done` of `total` is done (a `Progress` of sparsify); what takes longer stays at 100 %."""
        done = min(done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done / (total or 1.0) * self._total, note=note[-60:])
        elif not self._quiet and time.monotonic() - self._last > _LINE_EVERY_S and done:
            self._last = time.monotonic()
            # Before a fiftieth is done, after a repeat began at 0 again, or past the plan, an estimate would be absurd.
            sure = _LEAST_DONE <= done / total < 1
            left = (self._last - self._began) * (total - done) / done if sure else None
            told = "" if left is None else f", about {left:.0f} s left"
            self.say(f"{self._title}: {100 * done / total:.0f} %{told} ({note})")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Part:
    """Progress of one of several equal parts of a phase."""

    phase: Phase
    index: int
    count: int
    title: str

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass on, in units of parts; one that takes longer than planned stays within its own."""
        self.phase.update(self.index + (min(done / total, 1.0) if total else 0.0), self.count, f"{self.title} {note}")
