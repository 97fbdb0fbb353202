"""From what the user gave to the finished leaderboard, in an order that does not depend on how it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.leaderboard.boards import Board, build_boards
from harness.leaderboard.model import LeftOut, Source
from harness.leaderboard.sources import Found, find_sources, read_sources


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say.

    Attributes:
        suites: only these; all where empty.
        strict: several protocols of one suite are an error, not several columns.
        skip_unreadable: list results that cannot be read, instead of stopping.
    """

    suites: tuple[str, ...] = ()
    strict: bool = False
    skip_unreadable: bool = False


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All boards, what is in none and why, and the record files."""

    boards: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]
    sources: tuple[Source, ...]

    @property
    def rows(self) -> int:
        """Rows of all boards."""
        return sum(len(board.rows) for board in self.boards)


def assemble(arguments: Sequence[Path], options: Options | None = None) -> tuple[Leaderboard, list[Found]]:
    """Read the results and build the boards; the record files come with them.

    Raises:
        ConfigError: An argument holds no record, `strict` finds several protocols, or nothing is left to show.
        CorruptRecordError: A record is damaged, and those are not to be skipped.
    """
    chosen = options or Options()
    found, repeated = find_sources(arguments)
    rows, left_out = read_sources(found, skip_unreadable=chosen.skip_unreadable)
    boards, more = build_boards(rows, suites=chosen.suites, strict=chosen.strict)
    gone = sorted([*repeated, *left_out, *more])
    if not boards:
        told = "; ".join(f"{each.source} {each.what}: {each.reason}" for each in gone) or "no row in any record"
        raise ConfigError(f"nothing can be shown ({told}); give at least one finished run")
    sources = tuple(sorted((each.source for each in found), key=lambda source: (source.label, source.sha256)))
    return Leaderboard(tuple(boards), tuple(gone), sources), found
