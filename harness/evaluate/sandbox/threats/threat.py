"""One line of the threat table, with the program that tries it."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent
from typing import Literal

PROMPT = 'def f(x):\n    """Return x + 1."""\n'
TEST = "def check(candidate):\n    for x in (1, 2, 40):\n        assert candidate(x) == x + 1\n"

Goal = Literal["machine", "verdict"]


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What a program may try, what stands against it, and the program.

    All programs face the same problem: `f(x)` must be `x + 1`. Those that attack the machine compute `x + 1` only where
    the attack worked, the others never do; so each of them that passes has found a hole.

    Attributes:
        name: Of the program; the test of this line bears it.
        goal: `machine`, which must be contained, or `verdict`, which must not be fooled.
        asset: What is at stake.
        attack: What the program does.
        control: What stands against it.
        program: Its source; `@PORT@`, `@UDP@`, `@SOCKET@` and `@PLANTED@` stand for a listening TCP port, a UDP port,
            an abstract Unix socket and a file of the host.
        ends: The outcomes that the control leads to. `failed_assert` says most: the attack ran to its end and came
            back empty-handed.
        marked: Whether its verdict is `suspicious`.
        quick: Whether it is tried before every run, too.
    """

    name: str
    goal: Goal
    asset: str
    attack: str
    control: str
    program: str
    ends: tuple[str, ...] = ("failed_assert",)
    marked: bool = False
    quick: bool = True

    @property
    def source(self) -> str:
        """The program without the indentation of this file."""
        return dedent(self.program)


def fool(
    name: str,
    asset: str,
    attack: str,
    control: str,
    program: str,
    ends: tuple[str, ...] = ("failed_assert",),
    *,
    marked: bool = False,
    quick: bool = True,
) -> Threat:
    """A threat to the verdict; the fields of `Threat` in the order in which they are read."""
    return Threat(
        name=name,
        goal="verdict",
        asset=asset,
        attack=attack,
        control=control,
        program=program,
        ends=ends,
        marked=marked,
        quick=quick,
    )
