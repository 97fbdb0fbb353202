"""The course of a run: arms in turn on each piece, each timing journaled when done. Imports torch and lm-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.bench.evaluation.arms import ARMS, OURS, STOCK, Arm
from harness.bench.evaluation.ledger import Ledger, describe_place, turns
from harness.bench.evaluation.margins import top_two
from harness.bench.evaluation.ours import OurArm
from harness.bench.evaluation.settings import NEW_TOKENS, Settings
from harness.bench.evaluation.stock import open_stock, run_stock
from harness.bench.evaluation.subjects import Subject
from harness.bench.evaluation.task import Answers, Quiz, as_line, read_quiz
from harness.bench.machine import busy_between, read_activity
from harness.engines.torch import TorchEngine
from harness.errors import InfrastructureError
from harness.progress import Phase


class Session:
    """One model, open in both programs at once, so that they can take turns."""

    def __init__(self, directory: Path, quiz: Quiz, settings: Settings) -> None:
        """Open the model twice and let every arm answer one item, untimed."""
        torch.set_num_threads(settings.threads)
        self._quiz, self._pieces = quiz, settings.pieces()
        self._stock = open_stock(directory, batch=settings.batch)
        opened = TorchEngine.load(directory, device="cpu", dtype="float32", threads=settings.threads)
        self._ours = {arm.name: OurArm(opened, arm, batch=settings.batch) for arm in ARMS if arm != STOCK}
        for arm in ARMS:
            self._answer(arm, [0])

    def time(self, arm: Arm, piece: int) -> dict[str, Any]:
        """Answer one piece with one arm; the journal's line."""
        before = read_activity()
        answers = self._answer(arm, self._pieces[piece])
        return {**as_line(answers), **busy_between(before, read_activity())}

    def margin(self, item: str, at: int, tokens: Sequence[int]) -> dict[str, Any]:
        """How close the call at token `at` of an item's answer was, by stock's model."""
        prompt = self._ours[OURS.name].prompts(self._quiz)[item]
        gap, best = top_two(self._stock.model, [*prompt, *tokens[:at]])
        return {"item": item, "at": at, "margin": gap, "best": best}

    def _answer(self, arm: Arm, positions: Sequence[int]) -> Answers:
        if arm == STOCK:
            return run_stock(self._stock, self._quiz, positions)
        return self._ours[arm.name].run(self._quiz, positions)


def measure(subject: Subject, settings: Settings, ledger: Ledger, *, quiet: bool) -> None:
    """Time what is missing of one model, then look at every difference.

    Raises:
        InfrastructureError: The arms were not given the same prompts.
    """
    place = describe_place()
    missing = [(piece, arm) for piece, arm in turns(settings) if not place.items() <= _line(ledger, arm, piece).items()]
    open_ended = [turn for turn in turns(settings) if turn not in missing and _unexplained(ledger, *turn)]
    if not missing and not open_ended:
        return
    quiz = read_quiz(subject.data, items=settings.items, new_tokens=NEW_TOKENS[subject.name])
    session = Session(subject.directory, quiz, settings)
    with Phase(subject.name, len(missing), quiet=quiet) as phase:
        for done, (piece, arm) in enumerate(missing):
            phase.update(done, len(missing), f"{arm.name}, piece {piece + 1} of {len(settings.pieces())}")
            line = session.time(arm, piece)
            _same_prompts(ledger, line, piece)
            ledger.journal.add({"kind": "time", "arm": arm.name, "piece": piece, **ledger.key, **place, **line})
            phase.say(f"{subject.name}, {arm.name}, {len(line['tokens'])} items: {line['seconds']:.1f} s")
    for piece, arm in turns(settings):
        for item, at in _unexplained(ledger, piece, arm):
            ours = ledger.timing(arm, piece)
            assert ours is not None
            found = session.margin(item, at, ours["tokens"][item])
            ledger.journal.add({"kind": "margin", "arm": arm.name, **ledger.key, **found})


def _line(ledger: Ledger, arm: Arm, piece: int) -> dict[str, Any]:
    return ledger.timing(arm, piece) or {}


def _unexplained(ledger: Ledger, piece: int, arm: Arm) -> list[tuple[str, int]]:
    return [(item, at) for item, at in ledger.differences(arm, piece) if ledger.margin(arm, item, at) is None]


def _same_prompts(ledger: Ledger, line: Mapping[str, Any], piece: int) -> None:
    """Every arm must be asked the very same tokens, or the comparison is void."""
    for arm in ARMS:
        other = ledger.timing(arm, piece)
        if other is not None and other["prompts"] != line["prompts"]:
            raise InfrastructureError(f"piece {piece}: prompts differ from those of arm {arm.name}; report this")
