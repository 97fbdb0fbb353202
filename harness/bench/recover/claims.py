"""What was promised before anything was measured: whether the numbers bear it out, or leave it open."""

from __future__ import annotations

from harness.bench.recover.arms import CE, CE_SQUAREHEAD, DENSE, FINAL, ONE_SHOT, Arm
from harness.bench.recover.numbers import Comparison, Record
from harness.bench.sparsify.claims import Claim

# Pattern -> least mean recovery, and least lower 95 % limit.
GOALS = {"50": (0.99, 0.98), "70": (0.97, 0.95)}
INT8_GOAL = 0.98
ORDERED = ("70", "80")
_ORDER = ((ONE_SHOT, CE), (CE, CE_SQUAREHEAD))
_MISSING = "not measured"


def check_claims(record: Record) -> list[Claim]:
    """All claims; `holds` is None where numbers are missing or do not decide."""
    dense = Arm(DENSE)
    claims = []
    for pattern, (point, bound) in GOALS.items():
        found = record.compare(Arm(FINAL, pattern), dense)
        said = f"{pattern} %: mean recovery over the five skills, against dense with the same fine-tuning,"
        claims.append(_point(f"{said} at least {point:.0%}", found, point))
        claims.append(_bound(f"{said} lower 95 % limit at least {bound:.0%}", found, bound))
    int8 = record.compare(Arm(FINAL, "70", int8=True), Arm(FINAL, "70"))
    claims.append(_point(f"70 % INT8 keeps at least {INT8_GOAL:.0%} of the recovered variant", int8, INT8_GOAL))
    for pattern in ORDERED:
        for worse, better in _ORDER:
            found = record.compare(Arm(worse, pattern), Arm(better, pattern))
            claims.append(_below(f"{pattern} %: {worse} is worse than {better}", found))
    claims.append(_zeros(record))
    return claims


def shown(found: Comparison) -> str:
    """A comparison's mean in words, with both intervals."""
    mean = found.mean
    assert mean.value is not None
    parts = [f"{mean.value:.1%}"]
    if mean.ci95 is not None:
        parts.append(f"[{mean.ci95[0]:.1%}, {mean.ci95[1]:.1%}]")
    if found.over_seeds is not None and found.over_seeds.ci95 is not None:
        low, high = found.over_seeds.ci95
        parts.append(f"(over seeds alone {low:.1%} to {high:.1%})")
    gained, lost = found.flips
    parts.append(f"over {found.seeds} seed(s), n {mean.n}, flips +{gained} −{lost}")
    return " ".join(parts) + (f"; {mean.reason}" if mean.reason else "")


def _point(said: str, found: Comparison | None, least: float) -> Claim:
    if found is None or found.mean.value is None:
        return Claim(said, None, _MISSING)
    return Claim(said, found.mean.value >= least and not found.mean.reason, shown(found))


def _bound(said: str, found: Comparison | None, least: float) -> Claim:
    if found is None or found.limits is None:
        return Claim(said, None, _MISSING)
    if found.over_seeds is None:
        return Claim(said, None, f"one seed says nothing of the spread between seeds: {shown(found)}")
    return Claim(said, found.limits[0] >= least, shown(found))


def _below(said: str, found: Comparison | None) -> Claim:
    """Shown where the upper limit of worse over better is below 1, refuted where the lower one is above it."""
    if found is None or found.mean.value is None or found.limits is None:
        return Claim(said, None, _MISSING)
    low, high = found.limits
    numbers = f"the first is {shown(found)} of the second"
    if found.over_seeds is None:
        return Claim(said, None, f"one seed says nothing of the spread between seeds: {numbers}")
    if high < 1:
        return Claim(said, True, f"shown: {numbers}")
    if low > 1:
        return Claim(said, False, f"refuted: {numbers}")
    leans = "leans that way" if found.mean.value < 1 else "leans the other way"
    return Claim(said, None, f"not decided, {leans}: {numbers}")


def _zeros(record: Record) -> Claim:
    said = "0 revived weights in every variant that was pruned"
    masks = [line["masks"] for seeds in record.arms.values() for line in seeds.values() if line["masks"]]
    if not masks:
        return Claim(said, None, _MISSING)
    revived = sum(mask["revived"] for mask in masks)
    pruned = sum(mask["pruned"] for mask in masks)
    return Claim(said, revived == 0, f"{revived} of {pruned:,} pruned places in {len(masks)} variants")
