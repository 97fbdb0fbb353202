"""From timings to ratios, and from tokens to agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.evaluation.arms import ARMS, OURS, STEPS, STOCK, Arm
from harness.bench.evaluation.ledger import Ledger
from harness.bench.evaluation.settings import Settings
from harness.bench.sparsify.claims import Claim

LEAST_SPEEDUP = 3.0
LEAST_IDENTICAL = 0.995
CLOSE_CALL = 1e-4


@dataclass(frozen=True)
class Speedup:
    """How much faster one arm is than another, over the pieces that both have.

    Attributes:
        items: Answered by each.
        slow_s, fast_s: Wall seconds of generation in total.
        wall, cpu: Ratio of total wall and of total processor seconds; above 1 is faster.
        low, high: Smallest and largest wall ratio of a piece.
    """

    items: int
    slow_s: float
    fast_s: float
    wall: float
    cpu: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How an arm's answers compare with stock's, token by token.

    Attributes:
        rows: Answers compared.
        identical: Equal in every token.
        texts: Equal as text, stop texts cut off.
        margins: Where the others begin to differ: by how much the likeliest token's logit was above the second's.
        two_best: Whether the two arms' tokens were the two likeliest each time.
    """

    rows: int
    identical: int
    texts: int
    margins: tuple[float, ...]
    two_best: bool

    @property
    def share(self) -> float:
        """Share of identical rows."""
        return self.identical / self.rows


def pieces_of(ledger: Ledger, settings: Settings, arms: Sequence[Arm]) -> list[int]:
    """Pieces that all of the arms have."""
    pieces = range(len(settings.pieces()))
    return [piece for piece in pieces if all(ledger.timing(arm, piece) is not None for arm in arms)]


def speedup(ledger: Ledger, slow: Arm, fast: Arm, pieces: Sequence[int]) -> Speedup | None:
    """How much faster `fast` is on these pieces; None without a piece."""
    pairs = [(ledger.timing(slow, piece), ledger.timing(fast, piece)) for piece in pieces]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return None
    each = [a["seconds"] / b["seconds"] for a, b in known]
    slow_s, fast_s = (sum(pair[side]["seconds"] for pair in known) for side in (0, 1))
    slow_cpu, fast_cpu = (sum(pair[side]["cpu_seconds"] for pair in known) for side in (0, 1))
    items = sum(len(a["tokens"]) for a, _ in known)
    return Speedup(items, slow_s, fast_s, slow_s / fast_s, slow_cpu / fast_cpu, min(each), max(each))


def split(ledger: Ledger, settings: Settings) -> list[tuple[Arm, Speedup, float]]:
    """Per step: how much faster than stock it is, and how much faster than the step before it."""
    pieces = pieces_of(ledger, settings, ARMS)
    found = []
    for before, arm in zip(ARMS, STEPS, strict=False):
        total, step = speedup(ledger, STOCK, arm, pieces), speedup(ledger, before, arm, pieces)
        if total is not None and step is not None:
            found.append((arm, total, step.wall))
    return found


def agreement(ledger: Ledger, settings: Settings, arm: Arm) -> Agreement | None:
    """An arm's tokens against stock's; None where nothing was measured."""
    rows, texts, unlike, margins, two_best = 0, 0, 0, [], True
    for piece in pieces_of(ledger, settings, (STOCK, arm)):
        ours, stock = ledger.timing(arm, piece), ledger.timing(STOCK, piece)
        assert ours is not None and stock is not None
        rows += len(ours["tokens"])
        texts += sum(text == stock["texts"][item] for item, text in ours["texts"].items())
        for item, at in ledger.differences(arm, piece):
            unlike += 1
            found = ledger.margin(arm, item, at)
            if found is not None:
                margins.append(float(found["margin"]))
                pair = {tokens[item][at] for tokens in (ours["tokens"], stock["tokens"]) if at < len(tokens[item])}
                two_best = two_best and pair <= set(found["best"])
    return Agreement(rows, rows - unlike, texts, tuple(margins), two_best) if rows else None


def check_claims(name: str, ledger: Ledger, settings: Settings) -> list[Claim]:
    """What was asked of the evaluation before it was measured; `holds` is None where numbers are missing."""
    faster = f"{name}: at least {LEAST_SPEEDUP:g} times as fast as stock lm-eval in one run"
    alike = f"{name}: at least {LEAST_IDENTICAL:.1%} of the rows are identical in every token"
    close = f"{name}: every other row begins to differ at a top-2 logit margin below {CLOSE_CALL:g}"
    pieces = pieces_of(ledger, settings, (STOCK, OURS))
    total, found = speedup(ledger, STOCK, OURS, pieces), agreement(ledger, settings, OURS)
    if total is None or found is None or len(pieces) < len(settings.pieces()):
        return [Claim(text, None, "not measured") for text in (faster, alike, close)]
    told = (
        f"{total.slow_s:.1f} s / {total.fast_s:.1f} s = {total.wall:.2f}; by piece {total.low:.2f} to {total.high:.2f}"
    )
    explained = len(found.margins) == found.rows - found.identical
    largest = f"largest {max(found.margins):.2g}" if found.margins else "no row differs"
    return [
        Claim(faster, total.wall >= LEAST_SPEEDUP, told),
        Claim(alike, found.share >= LEAST_IDENTICAL, f"{found.identical} of {found.rows}"),
        Claim(close, all(margin < CLOSE_CALL for margin in found.margins) if explained else None, largest),
    ]
