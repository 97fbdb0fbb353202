"""How long-running work tells its caller how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress; implementations draw a bar, log lines or do nothing."""

    def update(self, done: float, total: float, note: str = "") -> None:
        """Report `done` of `total` units of work, with a short note."""


class NullProgress:
    """Discards progress."""

    def update(self, done: float, total: float, note: str = "") -> None:
        """Do nothing."""
