"""Options that several subcommands of `sparsebench bench` read alike."""

from __future__ import annotations

from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is a known one.

    Raises:
        ConfigError: It is not.
    """
    from harness.errors import ConfigError

    if value not in known:
        raise ConfigError(f"{option} is one of {', '.join(known)}, not {value!r}")
    return value


def numbers(option: str, text: str, possible: range) -> tuple[int, ...]:
    """Numbers separated by commas, each once.

    Raises:
        ConfigError: They are none, or one is not in `possible`.
    """
    from harness.errors import ConfigError

    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"{option} is a list of numbers such as 0,70, not {text!r}") from None
    wrong = [number for number in found if number not in possible]
    if wrong:
        raise ConfigError(f"{option}: {wrong[0]} is not between {possible[0]} and {possible[-1]}")
    return found


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds separated by commas, each once; the first one runs every arm.

    Raises:
        ConfigError: They are no numbers.
    """
    from harness.errors import ConfigError

    try:
        seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"--seeds is a list of numbers such as 0,1,2, not {text!r}") from None
    return seeds
