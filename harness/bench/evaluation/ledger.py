"""What was measured: timings by model, arm and piece, and how close the calls were where answers differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.bench.evaluation.arms import ARMS, OURS, STOCK, Arm
from harness.bench.evaluation.settings import NEW_TOKENS, SUITE, Settings
from harness.bench.machine import describe_machine
from harness.bench.sparsify.journal import Journal

_PACKAGES = ("lm_eval", "transformers", "torch")


def key_of(model: str, directory: Path, settings: Settings) -> dict[str, Any]:
    """What a model's timings belong to."""
    from sparsify.checkpoint import model_fingerprint
    from sparsify.files import sha256_json
    from suites.registry import load_suite, suite_hash

    body = {**asdict(settings), "new_tokens": NEW_TOKENS[model], "suite": suite_hash(load_suite(SUITE))}
    # How many pieces are split does not change a timing.
    del body["split"]
    return {"model": model, "model_sha256": model_fingerprint(directory), "settings_sha256": sha256_json(body)}


def describe_place() -> dict[str, Any]:
    """The machine and the versions of both programs' packages; timings of another place are not compared with ours."""
    return {"machine": describe_machine(), "versions": {name: version(name) for name in _PACKAGES}}


def turns(settings: Settings) -> Iterator[tuple[int, Arm]]:
    """Pieces and arms in the order in which they run; each piece begins with another arm."""
    for piece in range(len(settings.pieces())):
        arms = [arm for arm in ARMS if arm in (STOCK, OURS) or settings.is_split(piece)]
        first = piece % len(arms)
        yield from ((piece, arm) for arm in arms[first:] + arms[:first])


@dataclass(frozen=True)
class Ledger:
    """One model's lines in the journal.

    Attributes:
        journal: Of the whole benchmark.
        key: What this model's timings belong to.
    """

    journal: Journal
    key: Mapping[str, Any]

    def timing(self, arm: Arm, piece: int) -> dict[str, Any] | None:
        """The timing of a piece, if it is there."""
        return self.journal.find(kind="time", arm=arm.name, piece=piece, **self.key)

    def places(self) -> list[dict[str, Any]]:
        """Where timings come from, each place once."""
        found = [line for line in self.journal.lines if line["kind"] == "time" and self.key.items() <= line.items()]
        places = [{"machine": line["machine"], "versions": line["versions"]} for line in found]
        return [place for at, place in enumerate(places) if place not in places[:at]]

    def margin(self, arm: Arm, item: str, at: int) -> dict[str, Any] | None:
        """What was found where an arm's answer begins to differ from stock's."""
        return self.journal.find(kind="margin", arm=arm.name, item=item, at=at, **self.key)

    def differences(self, arm: Arm, piece: int) -> list[tuple[str, int]]:
        """Items of a piece that an arm answers differently from stock, and at which token that begins."""
        ours, stock = self.timing(arm, piece), self.timing(STOCK, piece)
        if ours is None or stock is None:
            return []
        found = ((item, first_difference(ids, stock["tokens"][item])) for item, ids in ours["tokens"].items())
        return [(item, at) for item, at in found if at is not None]


def first_difference(ours: Sequence[int], stock: Sequence[int]) -> int | None:
    """Position of the first token that differs; None where there is none.

    Args:
        ours: Tokens up to and with the one that ended the row.
        stock: Tokens of the same row in stock's batch; where it ended before its batch did, others follow.
    """
    unequal = (at for at, (a, b) in enumerate(zip(ours, stock, strict=False)) if a != b)
    return next(unequal, None if len(ours) <= len(stock) else len(stock))
