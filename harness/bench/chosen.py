"""Which arms of a benchmark `--arms` names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from harness.errors import ConfigError


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str:
        """As tables and `--arms` call it."""


T = TypeVar("T", bound=Named)


def named_arms(names: str | None, arms: Sequence[T], known: str) -> tuple[T, ...]:
    """The arms whose names fit `names` (names or globs, separated by commas), in their order; all of them without.

    Args:
        names: As it was typed.
        arms: All there are.
        known: For the message: how arms are called.

    Raises:
        ConfigError: A name fits none.
    """
    if not names:
        return tuple(arms)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if not any(fnmatchcase(arm.name, name) for arm in arms):
            raise ConfigError(f"--arms: no arm is called {name!r}; {known}")
    return tuple(arm for arm in arms if any(fnmatchcase(arm.name, name) for name in wanted))
