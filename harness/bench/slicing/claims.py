"""What was expected before anything was measured: whether the numbers bear it out, or leave it open."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.slicing.arms import (
    CE,
    CE_KL,
    CE_SQUAREHEAD,
    FRACTIONS,
    INT8,
    OTHER,
    PRUNED,
    RECOVERY,
    SCHEDULES,
    TEXTS,
    Arm,
    baseline_of,
)
from harness.bench.slicing.record import Record
from harness.bench.sparsify.claims import Claim

PAPER_GOAL = 0.99
INT8_LIMIT = 1.01
_MISSING = "not measured"


def check_claims(record: Record, models: Sequence[str]) -> list[Claim]:
    """All claims; `holds` is None where numbers are missing."""
    claims: list[Claim] = []
    for model in models:
        claims += [
            _rises(record, model),
            _below(record, f"{model}: uniform widths lose less than widths by energy", _pairs_of_schedules(model)),
            _below(record, f"{model}: text like the evaluation calibrates better", _pairs_of_texts(model)),
            _below(
                record, f"{model}: norm outputs (equation 8) serve better than the stream", _pairs_of_signals(model)
            ),
            _below(
                record,
                f"{model}: SquareHead across the rotation recovers more than cross-entropy alone",
                [(Arm(model, 25, after=CE_SQUAREHEAD), Arm(model, 25, after=CE))],
            ),
            _below(
                record,
                f"{model}: KL to the dense model recovers more than cross-entropy alone",
                [(Arm(model, 25, after=CE_KL), Arm(model, 25, after=CE))],
            ),
            _int8(record, model),
            _below(
                record,
                f"{model}: INT8 after slicing is better with axes turned at random",
                [(Arm(model, 25, orientation="random", after=INT8), Arm(model, 25, after=INT8))],
            ),
            _below(
                record,
                f"{model}: a basis per cut keeps more than one basis for all",
                [(Arm(model, 25), Arm(model, 25, basis="shared"))],
            ),
            _fewer(record, model),
        ]
    claims += [_keeps(record, after) for after in (RECOVERY, CE)]
    return claims


def _rises(record: Record, model: str) -> Claim:
    said = f"{model}: perplexity rises with the fraction that is cut off"
    found = [record.perplexity(Arm(model, fraction)) for fraction in (0, *FRACTIONS)]
    if None in found:
        return Claim(said, None, _MISSING)
    values = [value for value in found if value is not None]
    holds = all(a < b for a, b in zip(values, values[1:], strict=False))
    return Claim(said, holds, " < ".join(f"{value:.4g}" for value in values))


def _below(record: Record, said: str, pairs: Sequence[tuple[Arm, Arm]]) -> Claim:
    """Whether the first of each pair has the lower perplexity; a difference within its interval is counted apart."""
    found = [(record.perplexity(a), record.perplexity(b), record.ratio(a, b)) for a, b in pairs]
    measured = [(a, b, ratio) for a, b, ratio in found if a is not None and b is not None and ratio is not None]
    if len(measured) < len(pairs):
        return Claim(said, None, _MISSING)
    wins = sum(a < b for a, b, _ in measured)
    clear = sum(limits is not None and not limits[0] <= 1 <= limits[1] for _, _, (_, limits) in measured)
    numbers = "; ".join(f"{a:.4g} / {b:.4g}" for a, b, _ in measured)
    holds = True if wins == len(measured) else False if wins == 0 else None
    return Claim(
        said, holds, f"{wins} of {len(measured)}, {clear} of the differences beyond their intervals: {numbers}"
    )


def _pairs_of_schedules(model: str) -> list[tuple[Arm, Arm]]:
    return [
        (Arm(model, fraction, text), Arm(model, fraction, text, "mass")) for fraction in FRACTIONS for text in TEXTS
    ]


def _pairs_of_texts(model: str) -> list[tuple[Arm, Arm]]:
    return [
        (Arm(model, fraction, schedule=schedule), Arm(model, fraction, OTHER, schedule))
        for fraction in FRACTIONS
        for schedule in SCHEDULES
    ]


def _pairs_of_signals(model: str) -> list[tuple[Arm, Arm]]:
    return [
        (Arm(model, fraction, text, schedule), Arm(model, fraction, text, schedule, "stream"))
        for fraction in FRACTIONS
        for text in TEXTS
        for schedule in SCHEDULES
    ]


def _int8(record: Record, model: str) -> Claim:
    said = f"{model}: INT8 after slicing 25 % costs at most 1 % of perplexity"
    found, whole = record.perplexity(Arm(model, 25, after=INT8)), record.perplexity(Arm(model, 25))
    if found is None or whole is None:
        return Claim(said, None, _MISSING)
    pruned = record.perplexity(Arm(model, 25, after=PRUNED))
    beside = "" if pruned is None else f"; pruned to 50 % instead {pruned:.4g}"
    return Claim(said, found <= INT8_LIMIT * whole, f"{whole:.4g} -> {found:.4g}{beside}")


def _fewer(record: Record, model: str) -> Claim:
    said = f"{model}: slicing 25 % removes less than 25 % of the parameters"
    dense, sliced = record.arms.get(Arm(model).name), record.arms.get(Arm(model, 25).name)
    if dense is None or sliced is None:
        return Claim(said, None, _MISSING)
    change = sliced["parameters"] / dense["parameters"] - 1
    work = sliced["macs_per_token"] / dense["macs_per_token"] - 1
    numbers = f"{dense['parameters']:,} -> {sliced['parameters']:,} ({change:+.1%}); MACs a token {work:+.1%}"
    return Claim(said, change > -0.25, numbers)


def _keeps(record: Record, after: str) -> Claim:
    arm = Arm("pocket", 25, after=after)
    said = (
        f"pocket: 25 % with {after} keeps at least {PAPER_GOAL:.0%} of the skills of the dense model with the same "
        "fine-tuning (the paper's figure for its largest models)"
    )
    found = record.kept(arm, baseline_of(arm))
    if found is None or found.mean.value is None:
        return Claim(said, None, _MISSING)
    interval = "" if found.mean.ci95 is None else f" [{found.mean.ci95[0]:.1%}, {found.mean.ci95[1]:.1%}]"
    gained, lost = found.flips
    numbers = f"{found.mean.value:.1%}{interval}, n {found.mean.n}, flips +{gained} −{lost}"
    return Claim(said, found.mean.value >= PAPER_GOAL, numbers)
